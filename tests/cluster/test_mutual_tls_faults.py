"""Discovery, the CA, a rollout, a proxy, everything: what fails costs no request, and mutual TLS comes back by itself.

The load has open-loop pacing: a standstill shows as late answers, and a failure is an answer that is not the right one.
"""

import asyncio
import os
import select
import signal
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from mesh import names
from tests.cluster.churn import Churn
from tests.cluster.kubectl import DEADLINE_S, OPTED_IN, Object, a_pod, eventually, is_injected, statuses_of
from tests.cluster.machine import growth
from tests.cluster.mutual import COUNTER, Load, Meshed, meshed_pods, pacing, streaming, wait_rolled_out
from tests.cluster.plane import Plane, an_account, helm
from tests.cluster.results import Table
from tests.fixtures_cluster import RunningCluster

pytestmark = pytest.mark.cluster

# Requests that can be on their way to a proxy when it has just been killed, at 20 a second.
IN_FLIGHT: Final = 5
# HTTP requests a second, and beside them: what `pacer.py` calls them, port of the Service, how many a second.
RATE: Final = 12
# Of unrelated Services, a second.
CHANGES: Final = 4.0
BYTES: Final = ("bytes:7000:4", "first:3306:2")
LONG: Final = ("long:7000:2",)

TABLE: Final = Table(
    "Faults under steady load between two meshed pods",
    tuple(
        (case, "-")
        for case in (
            "discovery is gone, absent at the start of a client, and comes back empty",
            "every replica of discovery is killed",
            "every replica of CA and webhook is killed",
            "unrelated Services are made, changed and deleted",
            "the servers roll",
            "the servers roll to no sidecar",
            "the servers roll back to the mesh",
            "a client's identity files come late",
            "a server's identity files come late",
            "kill -9 of a server's Envoy",
            "kill -9 of the client's Envoy",
            "the control plane is uninstalled and installed again",
        )
    ),
)
ALL_KINDS: Final = "HTTP on kept and new connections, bytes, server first"
LASTING: Final = f"{ALL_KINDS}, one TCP connection and one HTTP/2 stream from beginning to end"


@pytest.fixture(scope="module")
def meshed(cluster: RunningCluster) -> Iterator[Meshed]:
    with meshed_pods(cluster) as found:
        yield found


@pytest.fixture
def plane(cluster: RunningCluster) -> Plane:
    return Plane(cluster)


def wait_connected(meshed: Meshed, pod: Object) -> None:
    eventually(lambda: meshed.metric(pod, "envoy_control_plane_connected_state") == 1, "the proxy reaches discovery")


def started(meshed: Meshed, name: str, account: str, **metadata: Any) -> Object:
    """A client pod of that account, once it is Ready."""
    meshed.home.apply(a_pod(meshed.machine.cluster, name, spec={"serviceAccountName": account}, **metadata))
    return meshed.home.wait_ready(name)[0]


@contextmanager
def loaded(meshed: Meshed, folder: Path, *, further: tuple[str, ...] = BYTES) -> Generator[Load]:
    """Load from the client; afterwards new requests go by mutual TLS, as both sides' proxies say."""
    enter, address = meshed.enter(meshed.client()), meshed.address()
    with pacing(enter, address, 80, folder / "load", rate=RATE, further=further) as load:
        load.more(40)
        yield load
        load.more(40)
    meshed.wait_configured()


@contextmanager
def unharmed(meshed: Meshed, folder: Path, *cases: str) -> Generator[Load]:
    """What happens in the block costs no request, and no connection that lasts; it changes no listener of the client,
    and nothing is tried without TLS."""
    client, body = meshed.client(), folder / "endless"
    untried = meshed.untried()
    with ExitStack() as stack:
        stream = stack.enter_context(streaming(meshed.enter(client), meshed.address(), 81, body))
        eventually(lambda: stream.poll() is not None or size_of(body), "the first bytes of the stream")
        with loaded(meshed, folder, further=BYTES + LONG) as load:
            yield load
        size = size_of(body)
        eventually(lambda: stream.poll() is not None or size_of(body) > size, "more bytes of the stream")
        assert stream.poll() is None
    assert load.failures() == []
    assert growth(untried, meshed.untried()) == 0
    assert meshed.metric(client, "envoy_listener_manager_listener_modified") == 0
    for case in cases:
        record(case, load, LASTING)


def size_of(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def record(case: str, load: Load, evidence: str) -> None:
    count, failed = len(load.answers()), len(load.failures())
    print(f"{case}: {failed} of {count} failed, slowest {load.slowest_ms:.0f} ms")
    TABLE.record(case, "-", f"{failed} of {count} requests failed, then mutual TLS", evidence)


def test_discovery_gone_absent_from_a_start_and_back(meshed: Meshed, plane: Plane, tmp_path: Path) -> None:
    client = meshed.client()
    case = "discovery is gone, absent at the start of a client, and comes back empty"
    with unharmed(meshed, tmp_path, case), ExitStack() as stack:
        with plane.scaled_down(names.DISCOVERY):
            eventually(lambda: meshed.metric(client, "envoy_control_plane_connected_state") == 0, "the stream to end")
            pod = started(meshed, "early", "client")
            enter, lines = meshed.enter(pod), tmp_path / "early"
            early = stack.enter_context(pacing(enter, meshed.address(), 80, lines, rate=RATE))
            early.more(30)
            assert meshed.metric(pod, COUNTER, dir="outbound", tls="TLSv1.2") == 0
        wait_connected(meshed, client)
        eventually(lambda: meshed.metric(pod, COUNTER, dir="outbound", tls="TLSv1.2") > 25, "TLS of the early pod")
        assert early.failures() == []
    meshed.home.kubectl("delete", "pod", "early", "--wait=false")


def test_every_replica_of_discovery_killed_at_once(meshed: Meshed, plane: Plane, tmp_path: Path) -> None:
    with unharmed(meshed, tmp_path, "every replica of discovery is killed"):
        plane.crash(names.DISCOVERY)
        wait_connected(meshed, meshed.client())


def test_every_replica_of_ca_and_webhook_killed_at_once(meshed: Meshed, plane: Plane, tmp_path: Path) -> None:
    with unharmed(meshed, tmp_path, "every replica of CA and webhook is killed"):
        plane.crash(names.CA, names.WEBHOOK)


def test_unrelated_services_that_come_change_and_go(meshed: Meshed, tmp_path: Path) -> None:
    """Each has a meshed pod behind it, so each is a listener and a cluster for every proxy."""
    churn = Churn(services=12, changes=4, rate=CHANGES)
    added = "envoy_listener_manager_listener_added"
    before = meshed.metric(meshed.client(), added)
    with unharmed(meshed, tmp_path) as load:
        reached = asyncio.run(churn.run(meshed.home))
        print(f"{churn.total} changes of Services, {reached:.1f} a second")
        # Discovery gathers changes that come together, so not every one of them is a listener.
        new = before + churn.services
        eventually(lambda: meshed.metric(meshed.client(), added) >= new, "a listener for each Service")
    record("unrelated Services are made, changed and deleted", load, f"{reached:.1f} changes a second; {LASTING}")


def test_servers_that_roll_leave_the_mesh_and_join_it(meshed: Meshed, tmp_path: Path) -> None:
    before = {pod["metadata"]["uid"] for pod in meshed.servers()}
    with loaded(meshed, tmp_path) as load:
        meshed.home.kubectl("rollout", "restart", "deployment/web")
        wait_rolled_out(meshed.home, "web")
    assert load.failures() == []
    record("the servers roll", load, ALL_KINDS)
    assert before.isdisjoint({pod["metadata"]["uid"] for pod in meshed.servers()})
    (tmp_path / "away").mkdir()
    with loaded(meshed, tmp_path / "away") as load:
        relabel(meshed, names.INJECT_DISABLED)
        plain = meshed.outbound(tls="", reason="not_meshed")
        load.more(60)
        eventually(lambda: meshed.outbound(tls="", reason="not_meshed") > plain, "plaintext, counted as that")
        left = len(load.answers())
        relabel(meshed, OPTED_IN[names.INJECT_LABEL])
    assert load.failures() == []
    record("the servers roll to no sidecar", load, ALL_KINDS)
    record("the servers roll back to the mesh", load, ALL_KINDS)
    assert len(load.answers()) > left


def relabel(meshed: Meshed, value: str) -> None:
    patch = f'{{"spec": {{"template": {{"metadata": {{"labels": {{"{names.INJECT_LABEL}": "{value}"}}}}}}}}}}'
    meshed.home.kubectl("patch", "deployment", "web", f"--patch={patch}")
    wait_rolled_out(meshed.home, "web")


def test_identities_that_come_late(meshed: Meshed, plane: Plane, tmp_path: Path) -> None:
    """Of a client, and of a third server: who finds it unprepared asks another one."""
    key = f"{names.IDENTITY_MOUNT}/..data/{names.TLS_PRIVATE_KEY_KEY}"
    servers = len(meshed.servers())
    with ExitStack() as stack:
        load = stack.enter_context(loaded(meshed, tmp_path))
        with plane.scaled_down(names.CA):
            meshed.home.apply(an_account("nameless"), late_servers(meshed))
            pod = started(meshed, "nameless", "nameless")
            mine = stack.enter_context(pacing(meshed.enter(pod), meshed.address(), 80, tmp_path / "mine", rate=RATE))
            eventually(lambda: len(meshed.servers()) == servers + 1, "the late server")
            late = next(each for each in meshed.servers() if each["metadata"]["name"].startswith("late"))
            meshed.home.wait_ready(late["metadata"]["name"])
            load.more(60)
            assert meshed.home.find("secret", names.identity_secret_name("nameless")) is None
            assert meshed.metric(pod, COUNTER, dir="outbound", tls="TLSv1.2") == 0
        look = ("exec", "nameless", f"--container={names.PROXY_CONTAINER}", "--", "test", "-s", key)
        eventually(lambda: meshed.home.run(*look).returncode == 0, "the identity files")
        seen = time.monotonic()
        eventually(
            lambda: meshed.metric(pod, COUNTER, dir="outbound", tls="TLSv1.2") > 0, "the first request by mutual TLS"
        )
        # Design, section 7: late identity files matter for seconds only.
        print(f"files to first mutual TLS: at most {time.monotonic() - seen:.1f} s (budget 10 s)")
        eventually(
            lambda: meshed.outbound(tls="TLSv1.2", peer=meshed.identity("nameless")) > 0,
            "the late server by mutual TLS",
        )
        mine.more(50)
        assert mine.failures() == []
        meshed.home.kubectl("delete", "deployment", "late")
        eventually(lambda: len(meshed.servers()) == servers, "the late server is gone")
    assert load.failures() == []
    record("a client's identity files come late", mine, "HTTP on kept and new connections")
    record("a server's identity files come late", load, ALL_KINDS)
    meshed.home.kubectl("delete", "pod", "nameless", "--wait=false")


def late_servers(meshed: Meshed) -> Object:
    """One more server behind the Service, of another ServiceAccount."""
    found = meshed.home.get("deployment", "web")
    spec = {**found["spec"], "replicas": 1, "selector": {"matchLabels": {"app": "web", "late": "true"}}}
    labels = {**spec["template"]["metadata"]["labels"], "late": "true"}
    pod = {**spec["template"]["spec"], "serviceAccountName": "nameless", "serviceAccount": "nameless"}
    spec["template"] = {"metadata": {"labels": labels}, "spec": pod}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "late"}, "spec": spec}


def killed_envoy(meshed: Meshed, pod: Object) -> int:
    """Kills it; the pid that it had, which is gone on return."""
    envoy = meshed.machine.envoy_of(pod)
    assert envoy
    handle = os.pidfd_open(envoy)
    try:
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        # Readable once the process has ended (pidfd_open(2)), its sockets included.
        assert select.select([handle], [], [], DEADLINE_S)[0]
    finally:
        os.close(handle)
    return envoy


def test_killed_proxy_of_a_server_costs_what_is_in_flight(meshed: Meshed, tmp_path: Path) -> None:
    pod = meshed.servers()[0]
    with loaded(meshed, tmp_path) as load:
        envoy = killed_envoy(meshed, pod)
        gone = time.time()
        load.more(80)
    print(f"failed: {load.failures()}")
    # What began before is lost with the proxy that had it in hand, however many those are on a busy machine.
    assert len([each for each in load.failures() if each["at"] > gone]) <= IN_FLIGHT
    record("kill -9 of a server's Envoy", load, f"{ALL_KINDS}; only what was in flight may fail")
    # Process 1 brought it back; the kubelet had nothing to restart.
    now = meshed.home.get("pod", pod["metadata"]["name"])
    assert statuses_of(now)[names.PROXY_CONTAINER]["restartCount"] == 0
    assert meshed.machine.envoy_of(now) not in (None, envoy)


def test_killed_proxy_of_the_client_is_back_at_once(meshed: Meshed, tmp_path: Path) -> None:
    pod = meshed.client()
    with loaded(meshed, tmp_path) as load:
        killed_envoy(meshed, pod)
        load.more(80)
        # Nothing had to be started by the kubelet, as the count of restarts says below.
        eventually(lambda: {answer.get("status") for answer in load.answers()[-50:]} == {200}, "answers, and no others")
    failed = load.failures()
    outage = failed[-1]["at"] - failed[0]["at"] if failed else 0.0
    print(f"outage: {outage:.2f} s")
    record("kill -9 of the client's Envoy", load, f"{ALL_KINDS}; from first to last failure {outage:.2f} s")
    assert statuses_of(meshed.client())[names.PROXY_CONTAINER]["restartCount"] == 0


def test_first_connection_of_a_new_pod(meshed: Meshed) -> None:
    """Answered always; by mutual TLS unless the machine was too busy to configure the proxy within two seconds."""
    count = 5
    command = ["sh", "-c", f"curl --silent --fail --max-time 120 http://{meshed.address()}/ && exec sleep infinity"]
    container = {"name": "app", "image": meshed.machine.cluster.image("testbox"), "command": command}
    names_ = [f"first-{number}" for number in range(count)]
    by_tls = 0
    for name in names_:
        spec = {"serviceAccountName": "client", "containers": [container]}
        meshed.home.apply(a_pod(meshed.machine.cluster, name, spec=spec))
        pod = meshed.home.wait_ready(name)[0]
        eventually(lambda name=name: '"pod"' in meshed.home.kubectl("logs", name, "--container=app"), "the answer")
        by_tls += meshed.metric(pod, COUNTER, dir="outbound", tls="TLSv1.2") == 1
        assert statuses_of(pod)["app"]["restartCount"] == 0
    print(f"first connection by mutual TLS: {by_tls} of {count}")


def registered(plane: Plane) -> list[str]:
    found = plane.cluster.get("mutatingwebhookconfigurations")["items"]
    return [each["metadata"]["name"] for each in found if "autotls" in each["metadata"]["name"]]


def test_uninstalled_control_plane_and_a_new_one(meshed: Meshed, plane: Plane, tmp_path: Path) -> None:
    written, client = plane.written(), meshed.client()
    with unharmed(meshed, tmp_path, "the control plane is uninstalled and installed again") as load:
        try:
            helm(plane.cluster, "uninstall", plane.space.name, "--wait", "--timeout=600s")
            eventually(lambda: registered(plane) == [], lambda: f"no registration: {registered(plane)}")
            eventually(lambda: meshed.metric(client, "envoy_control_plane_connected_state") == 0, "the stream to end")
            # A pod that starts without us is a pod like any other.
            assert not is_injected(started(meshed, "gone", "client"))
            load.more(50)
        finally:
            plane.install()
        plane.wait_healthy()
        wait_connected(meshed, client)
    # The root, the identities: everything is found again and nothing is made anew.
    assert f"{plane.space.name}/{names.ROOT_SECRET}" in written
    assert plane.rewritten(written) == set()
    meshed.home.kubectl("delete", "pod", "gone", "--wait=false")
