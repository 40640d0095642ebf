"""Discovery: the cluster's Services, EndpointSlices and Pods as Envoy resources, served to the proxies by delta ADS."""
