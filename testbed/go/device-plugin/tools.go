//go:build tools

// Package tools names NVIDIA's device plugin, which tells a kubelet of GPUs and gives them to containers.
package tools

import _ "github.com/NVIDIA/k8s-device-plugin/cmd/nvidia-device-plugin"
