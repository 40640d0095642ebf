// CoreDNS with the plugins of a cluster's DNS and no others: the release links five clouds' SDKs, which would treble the
// build time here.
package main

import (
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"

	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/health"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/ready"
	_ "github.com/coredns/coredns/plugin/reload"
	_ "github.com/coredns/coredns/plugin/template"
)

// The order of plugins in a server block's chain. Unlike in the release, template comes last: it answers what kubernetes
// does not know.
func init() {
	dnsserver.Directives = []string{"reload", "health", "ready", "errors", "cache", "kubernetes", "template"}
}

func main() {
	coremain.Run()
}
