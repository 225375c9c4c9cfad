//go:build tools

// Package tools names the operator that runs RayJobs.
package tools

import _ "github.com/ray-project/kuberay/ray-operator"
