"""`autotls tap` on the real cluster: what it shows, who may see it, and that nothing stays on."""

import json
import signal
import subprocess
from collections.abc import Iterator

import pytest

from mesh import names
from tests.cluster.kubectl import Space, eventually, run_autotls
from tests.cluster.mutual import Meshed, meshed_pods
from tests.cluster.tapping import discovery_pods, tap
from tests.fixtures_cluster import RunningCluster

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def meshed(cluster: RunningCluster) -> Iterator[Meshed]:
    with meshed_pods(cluster) as found:
        yield found


def open_taps(meshed: Meshed) -> float:
    pods = discovery_pods(meshed.machine.cluster)
    return sum(meshed.machine.metric(pod["status"]["podIP"], 9090, "autotls_discovery_taps") for pod in pods)


def switched_on(meshed: Meshed) -> bool:
    """Whether the client's proxy has been told to tell, by what its own admin interface says."""
    process = meshed.machine.process_of(meshed.client(), names.PROXY_CONTAINER)
    asked = subprocess.run(
        ["curl", "--silent", "--max-time", "120", "--unix-socket", f"/proc/{process}/root/run/autotls/admin.sock",
         "http://admin/runtime"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    entries = json.loads(asked.stdout)["entries"]
    return float(entries["autotls.tap"]["final_value"]) > 0


def request(meshed: Meshed, address: str, path: str, *options: str) -> str:
    quoted = " ".join(f"'{option}'" for option in options)
    return meshed.run(f"curl --silent --max-time 120 --path-as-is {quoted} 'http://{address}{path}'")


def test_mutual_tls_plaintext_and_failures_are_told_with_names_and_reasons(meshed: Meshed) -> None:
    cluster, home, outside = meshed.machine.cluster, meshed.home.name, meshed.outside.name
    plain = meshed.address(meshed.outside)
    with tap(cluster, "-n", home, "pod/client", proxies=1) as told:
        mutual = told.find(
            "a request by mutual TLS",
            lambda: request(meshed, meshed.address(), "/by-tls?card=4111"),
            path="/by-tls?…",
            tls=True,
        )
        assert (mutual["direction"], mutual["status"], mutual["method"]) == ("outbound", 200, "GET")
        assert mutual["peer"] == meshed.identity("web")
        assert mutual["source"]["pod"] == f"{home}/client"
        assert mutual["destination"]["workload"] == f"{home}/deployment/web"
        assert mutual["destination"]["service"] == f"{home}/web:80"
        bare = told.find(
            "a connection in plaintext", lambda: request(meshed, plain, "/in-plaintext"), reason="not_meshed"
        )
        assert (bare["tls"], bare["destination"]["service"]) == (False, f"{outside}/web:80")
        # A port where nobody listens.
        dead = f"curl --silent --max-time 120 http://{meshed.servers()[0]['status']['podIP']}:4444/ || true"
        failed = told.find("a connection that nobody took", lambda: meshed.run(dead), flags=["UF", "URX"])
        assert (failed["tls"], failed["destination"]["workload"]) == (False, f"{home}/deployment/web")
        assert "4111" not in json.dumps(told.entries())


def test_a_hostile_path_is_harmless_in_the_terminal(meshed: Meshed) -> None:
    with tap(meshed.machine.cluster, "-n", meshed.home.name, "pod/client", proxies=1) as told:
        path = "/<script>alert(1)</script>" + "a" * 8192
        # The server may refuse what the proxy passes on; the entry comes all the same.
        agent = ("--user-agent", "secret-agent")
        entry = told.find("the hostile path", lambda: request(meshed, meshed.address(), path, *agent), path=path[:1024])
        assert entry["method"] == "GET"
        assert "secret-agent" not in json.dumps(told.entries())


def test_filters_choose(meshed: Meshed) -> None:
    home = meshed.home.name
    options = ("-n", home, "pod/client", "--path", "/wanted", "--method", "GET", "--to", "svc/web", "--tls")
    with tap(meshed.machine.cluster, *options, proxies=1) as told:
        request(meshed, meshed.address(), "/other")
        request(meshed, meshed.address(), "/wanted/post", "--data", "x")
        told.find("the wanted one", lambda: request(meshed, meshed.address(), "/wanted/last"), path="/wanted/last")
        assert {entry["path"] for entry in told.entries()} == {"/wanted/last"}


def test_kill_9_of_the_command_leaves_nothing_on(meshed: Meshed) -> None:
    with tap(meshed.machine.cluster, "-n", meshed.home.name, "pod/client", proxies=1) as told:
        replicas = len(discovery_pods(meshed.machine.cluster))
        eventually(lambda: open_taps(meshed) == replicas, "a session with every replica")
        eventually(lambda: switched_on(meshed), "the proxy's switch is on")
        told.process.send_signal(signal.SIGKILL)
        eventually(lambda: open_taps(meshed) == 0, "no session is left")
        eventually(lambda: not switched_on(meshed), "the proxy's switch is off")


def test_who_lacks_the_verb_is_refused_by_name_and_a_binding_lets_them_in(meshed: Meshed) -> None:
    cluster, home = meshed.machine.cluster, meshed.home
    home.kubectl("create", "serviceaccount", "onlooker")
    whole = ("tap", "-n", home.name, f"--service-account={home.name}/onlooker", "--for=5s")
    refused = run_autotls(cluster, *whole)
    assert refused.returncode == 1
    assert f"system:serviceaccount:{home.name}:onlooker may not tap" in refused.stderr
    assert "the verb 'tap' on pods" in refused.stderr
    assert "--clusterrole=autotls-tap" in refused.stderr
    grant(home)
    # The API server's own picture of what is granted lags behind what is stored.
    eventually(lambda: run_autotls(cluster, *whole).returncode == 0, lambda: run_autotls(cluster, *whole).stderr)
    # Of that namespace, and of no other.
    everywhere = run_autotls(cluster, "tap", "-A", f"--service-account={home.name}/onlooker", "--for=5s")
    assert everywhere.returncode == 1
    assert "in all namespaces" in everywhere.stderr


def grant(home: Space) -> None:
    home.kubectl(
        "create", "rolebinding", "onlooker", f"--clusterrole={names.TAP}", f"--serviceaccount={home.name}:onlooker"
    )


def test_the_door_is_closed_to_other_pods(meshed: Meshed) -> None:
    for pod in discovery_pods(meshed.machine.cluster):
        address = f"{pod['status']['podIP']}:{names.TAP_PORT}"
        assert (
            meshed.run(f"curl --silent --max-time 120 http://{address}/tap || echo refused $?").strip() == "refused 7"
        )
