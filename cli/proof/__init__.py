"""What `autotls prove` is made of: facts of the cluster, the proxy's own words, one connection, and the judgement."""
