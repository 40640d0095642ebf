"""Discovery, the CA, a rollout, a proxy: what fails or is missing costs no request, and TLS comes back by itself.

The load has open-loop pacing: a standstill shows as late answers, and a failure is an answer that is not 200.
"""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from mesh import names
from tests.cluster.kubectl import Object, a_pod, eventually, statuses_of
from tests.cluster.mutual import COUNTER, Meshed, meshed_pods, pacing, wait_rolled_out
from tests.cluster.plane import Plane, an_account
from tests.fixtures_cluster import RunningCluster

pytestmark = pytest.mark.cluster

# Design, section 7: late identity files matter for seconds only.
JOIN_DEADLINE_S: Final = 10.0
IDENTITY_DEADLINE_S: Final = 180.0
# Requests that a proxy can have in hand when it is killed, at 25 a second and tens of milliseconds each.
IN_FLIGHT: Final = 5


@pytest.fixture(scope="module")
def meshed(cluster: RunningCluster) -> Iterator[Meshed]:
    with meshed_pods(cluster) as found:
        yield found


@pytest.fixture
def plane(cluster: RunningCluster) -> Plane:
    return Plane(cluster)


def wait_connected(meshed: Meshed, pod: Object) -> None:
    eventually(lambda: meshed.metric(pod, "envoy_control_plane_connected_state") == 1, "the proxy reaches discovery")


def started(meshed: Meshed, name: str, account: str) -> Object:
    """A client pod of that account, once it is Ready."""
    meshed.home.apply(a_pod(meshed.machine.cluster, name, spec={"serviceAccountName": account}))
    return meshed.home.wait_ready(name)[0]


def test_discovery_gone_and_back_again(meshed: Meshed, plane: Plane, tmp_path: Path) -> None:
    client = meshed.client()
    with pacing(meshed.enter(client), meshed.address(), 80, tmp_path / "load") as load:
        load.more(50)
        plaintext = meshed.plaintext()
        with plane.scaled_down(names.DISCOVERY):
            eventually(lambda: meshed.metric(client, "envoy_control_plane_connected_state") == 0, "the stream to end")
            load.more(100)
        wait_connected(meshed, client)
        load.more(50)
    assert load.failures() == []
    assert meshed.plaintext() == plaintext
    assert meshed.metric(client, "envoy_listener_manager_listener_modified") == 0


def test_every_replica_of_discovery_killed_at_once(meshed: Meshed, plane: Plane, tmp_path: Path) -> None:
    client = meshed.client()
    with pacing(meshed.enter(client), meshed.address(), 80, tmp_path / "load") as load:
        load.more(50)
        plaintext = meshed.plaintext()
        for pod in plane.pods(names.DISCOVERY):
            os.kill(meshed.machine.process_of(pod, "discovery"), signal.SIGKILL)
        load.more(50)
        plane.wait_healthy(names.DISCOVERY)
        wait_connected(meshed, client)
        load.more(50)
    assert load.failures() == []
    assert meshed.plaintext() == plaintext


def test_rollout_of_the_servers(meshed: Meshed, tmp_path: Path) -> None:
    before = {pod["metadata"]["uid"] for pod in meshed.servers()}
    with pacing(meshed.enter(meshed.client()), meshed.address(), 80, tmp_path / "load") as load:
        load.more(50)
        meshed.home.kubectl("rollout", "restart", "deployment/web")
        wait_rolled_out(meshed.home, "web")
        load.more(100)
    assert load.failures() == []
    assert before.isdisjoint({pod["metadata"]["uid"] for pod in meshed.servers()})
    meshed.wait_configured()


def test_discovery_absent_from_the_start(meshed: Meshed, plane: Plane, tmp_path: Path) -> None:
    with plane.scaled_down(names.DISCOVERY):
        pod = started(meshed, "early", "client")
        with pacing(meshed.enter(pod), meshed.address(), 80, tmp_path / "load") as load:
            load.more(50)
            assert meshed.metric(pod, COUNTER, dir="outbound", tls="TLSv1.2") == 0
    with pacing(meshed.enter(pod), meshed.address(), 80, tmp_path / "more") as more:
        eventually(
            lambda: meshed.metric(pod, COUNTER, dir="outbound", tls="TLSv1.2") > 25, "mutual TLS of the early pod"
        )
    assert load.failures() == []
    assert more.failures() == []


def test_identity_that_comes_late(meshed: Meshed, plane: Plane, tmp_path: Path) -> None:
    key = f"{names.IDENTITY_MOUNT}/..data/{names.TLS_PRIVATE_KEY_KEY}"
    look = ("exec", "nameless", f"--container={names.PROXY_CONTAINER}", "--", "test", "-s", key)
    with plane.scaled_down(names.CA):
        meshed.home.apply(an_account("nameless"))
        pod = started(meshed, "nameless", "nameless")
        assert meshed.home.find("secret", names.identity_secret_name("nameless")) is None
    with pacing(meshed.enter(pod), meshed.address(), 80, tmp_path / "load") as load:
        load.more(25)
        eventually(lambda: meshed.home.run(*look).returncode == 0, "the identity files", deadline_s=IDENTITY_DEADLINE_S)
        seen = time.monotonic()
        eventually(
            lambda: meshed.metric(pod, COUNTER, dir="outbound", tls="TLSv1.2") > 0,
            "the first request by mutual TLS",
            deadline_s=JOIN_DEADLINE_S,
        )
        print(f"files to first mutual TLS: at most {time.monotonic() - seen:.1f} s")
        load.more(50)
    assert load.failures() == []


def test_killed_proxy_of_a_server_costs_what_is_in_flight(meshed: Meshed, tmp_path: Path) -> None:
    pod = meshed.servers()[0]
    with pacing(meshed.enter(meshed.client()), meshed.address(), 80, tmp_path / "load") as load:
        load.more(50)
        envoy = meshed.machine.envoy_of(pod)
        assert envoy
        os.kill(envoy, signal.SIGKILL)
        load.more(150)
    print(f"failed: {load.failures()}")
    assert len(load.failures()) <= IN_FLIGHT
    # Process 1 brought it back; the kubelet had nothing to restart.
    now = meshed.home.get("pod", pod["metadata"]["name"])
    assert statuses_of(now)[names.PROXY_CONTAINER]["restartCount"] == 0
    eventually(lambda: meshed.machine.envoy_of(now) not in (None, envoy), "a new Envoy")
    meshed.wait_configured()


def test_killed_proxy_of_the_client_is_back_at_once(meshed: Meshed, tmp_path: Path) -> None:
    pod = meshed.client()
    with pacing(meshed.enter(pod), meshed.address(), 80, tmp_path / "load") as load:
        load.more(50)
        envoy = meshed.machine.envoy_of(pod)
        assert envoy
        os.kill(envoy, signal.SIGKILL)
        load.more(150)
    failed = load.failures()
    outage = failed[-1]["at"] - failed[0]["at"] if failed else 0.0
    print(f"outage: {outage:.2f} s, {len(failed)} of {len(load.answers())} requests")
    # The rest of the load was answered: nothing had to be started by the kubelet, which takes ten seconds and more.
    assert {answer.get("status") for answer in load.answers()[-50:]} == {200}
    assert statuses_of(meshed.client())[names.PROXY_CONTAINER]["restartCount"] == 0
    meshed.wait_configured()


def test_first_connection_of_a_new_pod(meshed: Meshed) -> None:
    """Answered always; by mutual TLS unless the machine was too busy to configure the proxy within two seconds."""
    count = 5
    command = ["sh", "-c", f"curl --silent --fail --max-time 20 http://{meshed.address()}/ && exec sleep infinity"]
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
