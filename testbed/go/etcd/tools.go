//go:build tools

// Package tools names etcd, whose server binary is its server module's root package.
package tools

import _ "go.etcd.io/etcd/server/v3"
