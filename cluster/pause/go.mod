module autotls.io/cluster/pause

go 1.24
