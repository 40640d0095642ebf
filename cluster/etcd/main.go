// etcd alone: the server module forbids `go install …@version` (it has replace directives), its main package is one call.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() {
	etcdmain.Main(os.Args)
}
