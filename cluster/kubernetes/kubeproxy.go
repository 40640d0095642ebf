package main

import (
	"k8s.io/kubernetes/cmd/kube-proxy/app"
)

func init() {
	programs["kube-proxy"] = app.NewProxyCommand
}
