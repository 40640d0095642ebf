"""Two meshed pods talk mutual TLS by themselves, whatever the protocol and the name; what is not meshed is unbroken.

Proven by the counters of both proxies, and by what passes the pod's end of the network.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.cluster.kubectl import eventually
from tests.cluster.mutual import Meshed, meshed_pods, sniffing, token
from tests.fixtures_cluster import RunningCluster

pytestmark = pytest.mark.cluster

CURL: Final = "curl --silent --show-error --fail --max-time 20 -H 'X-Marker: {marker}'"
# Each: what is run in the client, and what its output must hold. {service}, {pod}, {namespace}, {marker}.
HTTP: Final = CURL + " http://{target}:{http}/{marker}"
HTTP2: Final = CURL + " --http2-prior-knowledge http://{target}:{http2}/"
# nc ends when the server closes, which it does when we have. The first byte is no HTTP. Not before a moment: Envoy
# 1.40 drops a connection whose client says no more while its first bytes are looked at (`Closed` in
# listener_filter_buffer_impl.cc). A declared port, as the next one, is not looked at.
ECHO: Final = "(printf '\\001{marker}'; sleep 0.5) | timeout 20 nc -N {target} 7000"
SERVER_FIRST: Final = "printf '{marker}' | timeout 20 nc -N {target} 3306"
PROTOCOLS: Final = {
    "HTTP/1.1": (HTTP, "{marker}"),
    "HTTP/2 without TLS of its own": (HTTP2, "two {marker}"),
    "bytes": (ECHO, "\x01{marker}"),
    "the server speaks first": (SERVER_FIRST, "5.7 greetings-in-the-clear\n{marker}"),
}
THROUGH: Final = ("the Service", "the headless Service", "the pod's address")


@pytest.fixture(scope="module")
def meshed(cluster: RunningCluster) -> Iterator[Meshed]:
    with meshed_pods(cluster) as found:
        yield found


def script_of(meshed: Meshed, protocol: str, through: str, marker: str) -> tuple[str, str]:
    """A shell script for the client, and what it must print at its end."""
    ports = {"http": 80, "http2": 81} if through == "the Service" else {"http": 8080, "http2": 8081}
    target = {
        "the Service": meshed.address(),
        "the headless Service": f"headless.{meshed.home.name}.svc.cluster.local",
        "the pod's address": meshed.servers()[0]["status"]["podIP"],
    }[through]
    script, wanted = PROTOCOLS[protocol]
    return script.format(target=target, marker=marker, **ports), wanted.format(marker=marker)


@pytest.mark.parametrize("through", THROUGH)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_meshed_pods_talk_mutual_tls_and_both_proxies_say_so(meshed: Meshed, protocol: str, through: str) -> None:
    client, server = meshed.identity("client"), meshed.identity("web")

    def counts() -> tuple[float, float, float]:
        return (
            meshed.outbound(tls="TLSv1.2", peer=server),
            meshed.inbound(tls="TLSv1.2", peer=client),
            meshed.outbound(tls=""),
        )

    before = counts()
    for _ in range(3):
        script, wanted = script_of(meshed, protocol, through, token())
        assert wanted in meshed.run(script)
    # DNS over UDP is not redirected, so nothing but these connections is counted.
    eventually(lambda: counts() == (before[0] + 3, before[1] + 3, before[2]), lambda: f"{before} -> {counts()}")


def test_nothing_readable_passes_the_pods_network(meshed: Meshed, tmp_path: Path) -> None:
    marker = token()
    with sniffing(meshed, meshed.client(), tmp_path / "frames") as frames:
        for protocol in PROTOCOLS:
            for through in THROUGH:
                script, wanted = script_of(meshed, protocol, through, marker)
                assert wanted in meshed.run(script)
        seen = frames.read_bytes()
    assert len(seen) > 10_000
    assert marker.encode() not in seen
    assert b"greetings-in-the-clear" not in seen


def test_the_same_is_readable_where_the_client_is_not_meshed(meshed: Meshed, tmp_path: Path) -> None:
    """What the test above looks for would be found if it were there."""
    marker = token()
    with sniffing(meshed, meshed.client(meshed.outside), tmp_path / "frames") as frames:
        for protocol in PROTOCOLS:
            script, wanted = script_of(meshed, protocol, "the Service", marker)
            assert wanted in meshed.run(script, meshed.outside)
        seen = frames.read_bytes()
    assert marker.encode() in seen
    assert b"greetings-in-the-clear" in seen


@pytest.mark.parametrize("through", THROUGH)
def test_unmeshed_client_reaches_meshed_servers_with_its_own_address(meshed: Meshed, through: str) -> None:
    before = meshed.inbound()
    script, _ = script_of(meshed, "HTTP/1.1", through, "x")
    address = meshed.client(meshed.outside)["status"]["podIP"]
    assert f'"peer": "{address}"' in meshed.run(script, meshed.outside)
    assert meshed.inbound() == before


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_meshed_client_reaches_unmeshed_servers_in_plaintext(meshed: Meshed, protocol: str) -> None:
    marker = token()
    script, wanted = PROTOCOLS[protocol]
    text = script.format(target=meshed.address(meshed.outside), marker=marker, http=80, http2=81)
    before = meshed.outbound(tls="")
    assert wanted.format(marker=marker) in meshed.run(text)
    eventually(lambda: meshed.outbound(tls="") == before + 1, "the connection to be counted as plaintext")


def test_pod_reaches_itself_through_its_own_service(meshed: Meshed) -> None:
    pod = meshed.servers()[0]["metadata"]["name"]
    command = f"for i in 1 2 3 4 5 6; do curl --silent --fail --max-time 20 http://{meshed.address()}/; done"
    answers = meshed.home.exec(pod, "sh", "-ec", command, container="app")
    assert {f'"pod": "{each["metadata"]["name"]}"' in answers for each in meshed.servers()} == {True}
    assert answers.count('"pod"') == 6
