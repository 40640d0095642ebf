"""Renewal as a running Envoy serves it, and expiry without a CA, in an installation whose certificates live for 135 s.

Two meshed pods are under load all the while. The same installation lets pods choose an image that nobody can pull, so
that is looked at here too.
"""

import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from mesh import names
from tests.cluster.kubectl import OPTED_IN, Object, Space, eventually, is_injected, space, statuses_of
from tests.cluster.machine import Machine, Series, Watch, growth, watching
from tests.cluster.mutual import COUNTER, Load, Meshed, meshed_pods, pacing, streaming
from tests.cluster.plane import Plane, Versions, a_pod, an_account, save_identity
from tests.cluster.results import Table
from tests.fixtures_cluster import RunningCluster

pytestmark = pytest.mark.cluster

TABLE: Final = Table(
    "Certificates under steady load between two meshed pods",
    (("leaves of both sides are renewed", "-"), ("leaves of both sides expire while there is no CA", "-")),
)
NO_REGISTRY: Final = "127.0.0.1:1"
"""Refuses at once; a name would wait for a resolver that the node does not have."""
# Renewed after 27 s; files come at most 15 s later here (syncFrequency), long before the old certificate ends.
SHORT: Final = {
    "identity.leafLifetime": "135s",
    "identity.clockSkew": "5s",
    "identity.renewAt": 0.2,
    "proxy.allowedImagePrefixes": [NO_REGISTRY],
}


@dataclass(frozen=True, slots=True)
class ShortLived:
    """The changed installation."""

    plane: Plane
    space: Space
    before: Versions
    """What the CA had written with the default lifetimes."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Meshed pods under load, with one TCP connection and one HTTP/2 stream that last."""

    meshed: Meshed
    load: Load
    stream: "subprocess.Popen[str]"
    ends: dict[str, float]
    """When the leaf that each pod's proxy served at first ends (Unix time), by the pod's name."""


@pytest.fixture(scope="module")
def short_lived(cluster: RunningCluster) -> Iterator[ShortLived]:
    plane = Plane(cluster)
    plane.wait_healthy()
    with ExitStack() as stack:
        home = stack.enter_context(space(cluster, "renewal", labels=OPTED_IN))
        home.apply(an_account("steady"))
        eventually(lambda: home.find("secret", names.identity_secret_name("steady")), "an identity of 24 hours")
        stack.callback(plane.wait_healthy)
        before = plane.written()
        stack.callback(plane.install)
        plane.install(SHORT)
        plane.wait_healthy()
        yield ShortLived(plane, home, before)


@pytest.fixture(scope="module")
def pair(short_lived: ShortLived, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("pair")
    with ExitStack() as stack:
        meshed = stack.enter_context(meshed_pods(short_lived.plane.cluster))
        enter, address = meshed.enter(meshed.client()), meshed.address()
        further = ("bytes:7000:4", "first:3306:2", "long:7000:2")
        load = stack.enter_context(pacing(enter, address, 80, folder / "load", rate=12, further=further))
        stream = stack.enter_context(streaming(enter, address, 81, folder / "endless"))
        yield Pair(meshed, load, stream, ends_of(meshed))


def ends_of(meshed: Meshed) -> dict[str, float]:
    metric = "envoy_listener_ssl_certificate_expiration_unix_time_seconds"
    pods = [meshed.client(), *meshed.servers()]
    return {pod["metadata"]["name"]: meshed.metric(pod, metric, envoy_tls_certificate="leaf") for pod in pods}


def test_other_lifetimes_are_no_reason_to_issue_again(short_lived: ShortLived) -> None:
    assert f"{short_lived.space.name}/{names.identity_secret_name('steady')}" in short_lived.before
    assert short_lived.plane.rewritten(short_lived.before) == set()


def test_running_envoy_serves_the_renewed_certificate_and_keeps_its_connections(
    short_lived: ShortLived, pair: Pair, tmp_path: Path
) -> None:
    where, machine = short_lived.space, Machine(short_lived.plane.cluster)
    where.apply(an_account("renewed"), a_pod(where.cluster, "renewed", "renewed"))
    pod = where.wait_ready("renewed")[0]
    envoy = machine.envoy_of(pod)
    # The peer's own identity is one of 24 hours, so only the server's is renewed under its eyes.
    steady = where.get("secret", names.identity_secret_name("steady"))
    peer = save_identity(steady, tmp_path / "peer")
    job = {"address": pod["status"]["podIP"], "port": names.INBOUND_TLS_PORT, "identity": str(peer)}

    def served() -> dict[str, Any] | None:
        answer = machine.call(job)[0]
        return answer if answer.get("status") == 200 else None

    first = eventually(served, "the first certificate is served")
    with ExitStack() as stack:
        enter = where.cluster.enter_network
        kept = stack.enter_context(watching(enter, {**job, "keep": True}, tmp_path / "kept"))
        fresh = stack.enter_context(watching(enter, job, tmp_path / "fresh"))
        kept.wait_for_more()
        # Two renewals: the second happens to a certificate that was renewed.
        wait_for_serials(fresh, {first["serial"]}, count=2)
        kept.wait_for_more()
        assert fresh.failures() == []
        assert kept.failures() == []
        assert len(kept.answers()) > 3
    after = where.get("pod", "renewed")
    assert machine.envoy_of(after) == envoy
    assert [status["restartCount"] for status in statuses_of(after).values()] == [0] * len(statuses_of(after))

    # Those under load were renewed meanwhile, or soon are.
    eventually(
        lambda: all(end > pair.ends[name] for name, end in ends_of(pair.meshed).items()),
        "renewed identities of the pair",
    )
    pair.load.more(50)
    record("leaves of both sides are renewed", pair)


def record(case: str, pair: Pair) -> None:
    count, failed = len(pair.load.answers()), pair.load.failures()
    print(f"{case}: {len(failed)} of {count} failed, slowest {pair.load.slowest_ms:.0f} ms")
    assert failed == []
    assert pair.stream.poll() is None
    kinds = "HTTP, bytes, server first, one TCP connection and one HTTP/2 stream from beginning to end"
    TABLE.record(case, "-", "no request failed, then mutual TLS", kinds)


def test_expired_leaves_without_a_ca_cost_no_request_and_new_ones_bring_mutual_tls_back(
    short_lived: ShortLived, pair: Pair
) -> None:
    meshed = pair.meshed
    with short_lived.plane.scaled_down(names.CA):
        last = max(ends_of(meshed).values())
        before = meshed.outbound(tls="", reason="tls_failed")
        eventually(lambda: time.time() > last, "the end of every leaf")
        eventually(lambda: meshed.outbound(tls="", reason="tls_failed") > before, "requests without TLS")
        pair.load.more(60)

    def by_tls() -> Series:
        address = meshed.client()["status"]["podIP"]
        return meshed.machine.series(address, names.STATUS_PORT, COUNTER, dir="outbound", tls="TLSv1.2", proto="TCP")

    back = by_tls()
    eventually(lambda: growth(back, by_tls()) > 10, "new connections by mutual TLS")
    pair.load.more(50)
    record("leaves of both sides expire while there is no CA", pair)


def wait_for_serials(watch: Watch, known: set[str], *, count: int) -> None:
    def found() -> bool:
        return len({answer.get("serial") for answer in watch.answers()} - {None} - known) >= count

    eventually(found, lambda: f"{count} new serials: {watch.answers()[-1:]}")


def test_image_that_cannot_be_pulled_holds_the_pod_and_is_found(short_lived: ShortLived) -> None:
    where, image = short_lived.space, f"{NO_REGISTRY}/proxy:none"
    pod = a_pod(where.cluster, "held", "steady", annotations={f"{names.SETTING_PREFIX}proxy-image": image})
    where.apply(pod)

    def waiting() -> Object | None:
        found = where.get("pod", "held")
        states = [status["state"].get("waiting", {}) for status in statuses_of(found).values()]
        pulling = any(state.get("reason") in ("ErrImagePull", "ImagePullBackOff") for state in states)
        return found if pulling else None

    held = eventually(waiting, "the kubelet says that the image cannot be pulled")
    assert is_injected(held)
    found = [each for each in short_lived.plane.findings("proxies-running") if each["subject"].endswith("/held")]
    assert len(found) == 1
    assert found[0]["verdict"] == "fail"
    assert f"image {image} cannot be pulled" in found[0]["message"]
    assert "correct image.proxy of the installation" in found[0]["hint"]
    where.kubectl("delete", "pod", "held", "--wait=false")
