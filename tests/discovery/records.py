"""What a proxy told about one request, to be changed by the test that needs another one."""

from __future__ import annotations

from discovery.accesslog import Record

RECORD = Record(
    http=True,
    outbound=True,
    started_us=1_764_149_400_123_456,
    duration_us=1500,
    protocol="HTTP/2",
    source="10.0.0.1:40000",
    local="10.96.0.10:80",
    upstream="10.0.0.2:15108",
    cluster="shop/web:80",
    tls="TLSv1.2",
    peer="spiffe://cluster.local/ns/shop/sa/web",
    reason="",
    method="GET",
    authority="Web:80",
    path="/cart/1",
    status=200,
    grpc="",
    flags=(),
    failure="",
    received_bytes=1,
    sent_bytes=2,
)
