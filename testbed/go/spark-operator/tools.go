//go:build tools

// Package tools names the operator that runs SparkApplications.
package tools

import _ "github.com/kubeflow/spark-operator/v2/cmd/operator"
