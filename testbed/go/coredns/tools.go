//go:build tools

// Package tools names CoreDNS, the cluster's name server.
package tools

import _ "github.com/coredns/coredns"
