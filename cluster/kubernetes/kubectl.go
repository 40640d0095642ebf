package main

import (
	"k8s.io/kubectl/pkg/cmd"
)

func init() {
	programs["kubectl"] = cmd.NewDefaultKubectlCommand
}
