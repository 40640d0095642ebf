"""What the proxies counted, turned into tables: which traffic was mutual TLS, which was not, and why."""
