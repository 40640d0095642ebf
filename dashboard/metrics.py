"""Prometheus metrics of the dashboard."""

from typing import Final

from prometheus_client import Counter, Histogram

SCRAPED: Final = Counter("autotls_dashboard_scrapes", "Answers of proxies and the CA")
FAILED: Final = Counter("autotls_dashboard_scrape_failures", "Proxies or CA replicas that did not answer as such")
ROUND_SECONDS: Final = Histogram(
    "autotls_dashboard_round_seconds", "One look at every proxy", buckets=(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
)
