// One binary for every Kubernetes program of the development cluster; the name it is called by chooses the program,
// as busybox does. One link step instead of six saves minutes of building and 400 MB of disk.
//
// Each program registers itself from its own file, so that an older API server can be built alone from main.go and
// apiserver.go (that is what recording admission reviews of older versions needs).
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
)

var programs = map[string]func() *cobra.Command{}

func main() {
	name := filepath.Base(os.Args[0])
	program, known := programs[name]
	if !known {
		fmt.Fprintf(os.Stderr, "%s: this binary holds no program of that name\n", name)
		os.Exit(2)
	}
	os.Exit(cli.Run(program()))
}
