"""When `make up` has seen enough of its sample application."""

import pytest

from cluster.install import all_mutual_tls

TABLE = """NAME     MESHED   SUCCESS   RPS   LATENCY_P50   LATENCY_P95   LATENCY_P99        TLS
client      1/1         -     -             -             -             -         -
web         2/2   100.00%   1.0         5.0ms         9.5ms         9.9ms   {tls}

* plaintext from clients without a proxy is not counted here
"""


@pytest.mark.parametrize(("tls", "enough"), [("100.00%*", True), ("100.00%", True), ("99.99%*", False), ("-", False)])
def test_table_is_good_when_the_share_of_tls_is_all(tls: str, enough: bool) -> None:
    assert all_mutual_tls(TABLE.format(tls=tls), "web") is enough


def test_other_rows_say_nothing_about_it() -> None:
    assert not all_mutual_tls(TABLE.format(tls="100.00%"), "client")
    assert not all_mutual_tls("error: no answer\n", "web")
