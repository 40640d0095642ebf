"""Who lies about what they are, or asks for what is not theirs, from real pods: refused, counted, nothing reached."""

import base64
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from mesh import names
from tests.cluster.kubectl import Object, eventually, manifest
from tests.cluster.machine import Series
from tests.cluster.mutual import Meshed, meshed_pods, token
from tests.cluster.plane import Plane, save_identity
from tests.cluster.results import Table
from tests.fixtures_cluster import RunningCluster
from tests.proxy.certificates import Authority, Leaf

pytestmark = pytest.mark.cluster

ASKER: Final = "tests.cluster.asker"
REPOSITORY: Final = Path(__file__).parents[2]
UNDECLARED: Final = 9999
BUNDLE: Final = "ca.crt"
# Case: (what makes the job of `caller.py` wrong, the counter of the server's proxy that says so).
INBOUND: Final[dict[str, tuple[dict[str, Any], str]]] = {
    "no client certificate": ({"certificate": False}, "envoy_listener_ssl_fail_verify_no_cert"),
    "a certificate of another root": ({"identity": "stranger"}, "envoy_listener_ssl_fail_verify_error"),
    "another trust domain, signed by our root": ({"identity": "foreign"}, "envoy_listener_ssl_fail_verify_san"),
    "an expired certificate": ({"identity": "expired"}, "envoy_listener_ssl_fail_verify_error"),
    "no protocol of ours (ALPN)": ({"alpn": "http/1.1"}, "envoy_listener_no_filter_chain_match"),
    "no server name": ({"target": None}, "envoy_listener_no_filter_chain_match"),
    "the server name is another pod's address": ({"target": "{other}:8080"}, "envoy_listener_no_filter_chain_match"),
    "the server name is 15120": ({"target": 15120}, "envoy_listener_no_filter_chain_match"),
    "the server name is 15101": ({"target": 15101}, "envoy_listener_no_filter_chain_match"),
    "the server name is 15199, spelled +15199": ({"target": "+15199"}, "envoy_listener_no_filter_chain_match"),
}
ASKED: Final[dict[str, tuple[str, dict[str, Any], str, str]]] = {
    # Case: (where it is asked from, what is wrong with the job of `asker.py`, the code, the metric's reason).
    "another pod's configuration": ("client", {"node": "{other}"}, "PERMISSION_DENIED", "other_pod"),
    "with another ServiceAccount's certificate": ("client", {"identity": "web"}, "PERMISSION_DENIED", "other_identity"),
    "from another pod's address": ("outside", {}, "PERMISSION_DENIED", "other_identity"),
    "from an address of no pod": ("node", {}, "UNAVAILABLE", "unknown_address"),
    "with another trust domain's certificate": (
        "client", {"identity": "foreign"}, "PERMISSION_DENIED", "foreign_identity",
    ),
    "without a certificate": ("client", {"identity": None}, "UNAVAILABLE", ""),
    "with a certificate of another root": ("client", {"identity": "stranger"}, "UNAVAILABLE", ""),
}  # fmt: skip
POSING: Final = (
    "a meshed client asks a pod that serves another identity than its ServiceAccount's",
    "a strict client asks a pod that serves another identity than its ServiceAccount's",
    "a pod forges the mesh label",
    "a pod forges the mesh label and the sidecar's name",
)
REACHING: Final = (
    "another pod tries the ports of the sidecar",
    "the application tries the ports of its own sidecar",
    "the application tries the admin socket",
    "root in a shared process namespace tries the admin socket and the key",
)
TABLE: Final = Table(
    "Attacks",
    tuple(
        (case, path)
        for path, cases in {
            "inbound 15108": (*INBOUND, "a port that the pod does not declare"),
            "discovery": tuple(ASKED),
            "outbound": POSING,
            "sidecar": REACHING,
        }.items()
        for case in cases
    ),
)
# Nothing of the admin interface but these two: see proxy/bootstrap.yaml.in.
OPEN: Final = ("GET /ready", "GET /metrics")
CLOSED: Final = (
    "GET /", "POST /ready", "POST /quitquitquit", "GET /quitquitquit", "POST /healthcheck/fail", "GET /config_dump",
    "GET /certs", "POST /logging?level=trace", "POST /runtime_modify?a=b", "GET /ready/../config_dump",
    "GET /metrics/../certs", "GET //config_dump", "GET /ready%2f..%2fcerts", "GET /stats",
)  # fmt: skip
COMMANDS: Final = [command.split(" ", 1) for command in (*OPEN, *CLOSED)]


class MeshRoot(Authority):
    """The root of the mesh, as whoever may read its Secret has it."""

    def __init__(self, secret: Object) -> None:
        files = {name: base64.b64decode(value) for name, value in secret["data"].items()}
        key = serialization.load_pem_private_key(files[names.TLS_PRIVATE_KEY_KEY], password=None)
        self._key = key  # pyright: ignore[reportAttributeAccessIssue] - of the profile's kind, P-256
        self._certificate = x509.load_pem_x509_certificate(files[names.TLS_CERT_KEY])
        self._name = self._certificate.subject


@pytest.fixture(scope="module")
def meshed(cluster: RunningCluster) -> Iterator[Meshed]:
    with meshed_pods(cluster) as found:
        found.home.apply(*manifest(cluster, "forgers"))
        found.home.wait_ready("forged", "silent", "impostor", "strict", "shared")
        yield found


@pytest.fixture(scope="module")
def identities(cluster: RunningCluster, meshed: Meshed, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders with the files of good and bad identities."""
    folder = tmp_path_factory.mktemp("identities")
    found = {
        account: save_identity(meshed.home.get("secret", names.identity_secret_name(account)), folder / account)
        for account in ("client", "web")
    }
    bundle = (found["client"] / BUNDLE).read_bytes()
    mine = meshed.identity("client")
    root = MeshRoot(Plane(cluster).space.get("secret", names.ROOT_SECRET))
    bad: dict[str, Leaf] = {
        "stranger": Authority("stranger").leaf(mine, roots=bundle),
        "foreign": root.leaf(mine.replace("cluster.local", "other.example"), roots=bundle),
        "expired": root.leaf(mine, valid_until=timedelta(minutes=-5), roots=bundle),
    }
    for name, leaf in bad.items():
        found[name] = folder / name
        found[name].mkdir()
        for file, content in leaf.files().items():
            (found[name] / file).write_bytes(content)
    return found


# Inbound.


ALPNS: Final = ("autotls-http", "autotls-tcp")


def test_who_is_not_of_the_mesh_or_asks_for_what_is_no_port_of_the_application(
    meshed: Meshed, identities: dict[str, Path]
) -> None:
    server, other = meshed.servers()
    counters = Counter(counter for _, counter in INBOUND.values())

    def counted() -> dict[str, float]:
        return {counter: meshed.metric(server, counter) for counter in counters}

    before, answered = counted(), meshed.inbound(code="200")
    good = job(server, identities["client"])
    cases = [(case, alpn) for case in INBOUND for alpn in ALPNS]
    bad = [bad_job(server, other, identities, case, alpn) for case, alpn in cases]
    *refused, last = meshed.machine.call(*bad, good, enter=meshed.enter(meshed.client()))
    assert [case for case, answer in zip(cases, refused, strict=True) if "status" in answer] == []
    assert last["status"] == 200
    # Each was refused for its reason, and the servers' proxies saw the good one alone.
    wanted = {counter: count * len(ALPNS) for counter, count in counters.items()}

    def more() -> dict[str, float]:
        after = counted()
        return {counter: after[counter] - before[counter] for counter in counters}

    eventually(lambda: more() == wanted, lambda: f"{wanted}: {more()}")
    eventually(lambda: meshed.inbound(code="200") == answered + 1, "one request more, and no other")
    for case, (_, counter) in INBOUND.items():
        evidence = f"`{counter}` of the server's proxy; no application was reached"
        TABLE.record(case, "inbound 15108", "refused", evidence)


def bad_job(server: Object, other: Object, identities: dict[str, Path], case: str, alpn: str) -> dict[str, Any]:
    wrong = {"identity": "client", "alpn": alpn} | INBOUND[case][0]
    if isinstance(wrong.get("target"), str):
        wrong["target"] = wrong["target"].format(other=other["status"]["podIP"])
    return job(server, identities[wrong.pop("identity")]) | wrong


def job(server: Object, identity: Path) -> dict[str, Any]:
    return {"address": server["status"]["podIP"], "port": names.INBOUND_TLS_PORT, "identity": str(identity)}


def test_a_port_that_the_pod_does_not_declare_is_not_reached(
    meshed: Meshed, identities: dict[str, Path], tmp_path: Path
) -> None:
    server = meshed.servers()[0]
    address = server["status"]["podIP"]
    (tmp_path / "index.html").write_text("hidden")
    argv = [sys.executable, "-m", "http.server", str(UNDECLARED), f"--bind={address}", f"--directory={tmp_path}"]
    process = subprocess.Popen([*meshed.enter(server), *argv], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        enter = meshed.enter(meshed.client(meshed.outside))
        plain = {"address": address, "port": UNDECLARED}
        eventually(lambda: meshed.machine.call(plain, enter=enter)[0].get("status") == 200, "the undeclared port")
        refusals = meshed.metric(server, "envoy_autotls_rq", dir="inbound", code="503")
        good = job(server, identities["client"])
        bad = [good | {"target": UNDECLARED, "alpn": alpn} for alpn in ALPNS]
        http, raw, answered = meshed.machine.call(*bad, good, enter=meshed.enter(meshed.client()))
    finally:
        process.kill()
        process.wait(timeout=30)
    assert http["status"] == 503
    assert "status" not in raw
    assert answered["status"] == 200
    eventually(
        lambda: meshed.metric(server, "envoy_autotls_rq", dir="inbound", code="503") == refusals + 1, "one refusal more"
    )
    evidence = '`envoy_autotls_rq{dir="inbound",code="503"}`; the port does answer who asks in plaintext'
    TABLE.record("a port that the pod does not declare", "inbound 15108", "refused", evidence)


# Discovery.


def test_who_asks_discovery_for_what_is_not_theirs(meshed: Meshed, identities: dict[str, Path]) -> None:
    plane, home = Plane(meshed.machine.cluster), meshed.home.name
    good = {"node": f"client.{home}", "identity": "client", "roots": str(identities["client"] / BUNDLE)}
    places = {
        "client": meshed.enter(meshed.client()),
        "outside": meshed.enter(meshed.client(meshed.outside)),
        "node": meshed.machine.cluster.enter_network,
    }
    reasons = Counter(reason for *_, reason in ASKED.values() if reason)

    def counted() -> dict[str, float]:
        metric, pods = "autotls_discovery_refused_streams_total", plane.pods(names.DISCOVERY)
        addresses = [pod["status"]["podIP"] for pod in pods]
        return {
            reason: sum(meshed.machine.metric(each, names.HEALTH_PORT, metric, reason=reason) for each in addresses)
            for reason in reasons
        }

    before, codes = counted(), dict[str, str]()
    other = f"{meshed.servers()[0]['metadata']['name']}.{home}"
    for place, enter in places.items():
        cases = {case: wrong for case, (where, wrong, *_) in ASKED.items() if where == place}
        jobs = [good | wrong for wrong in cases.values()]
        for each in jobs:
            each["node"] = each["node"].format(other=other)
        *refused, last = asked(plane, enter, identities, *jobs, good)
        codes |= {case: answer.get("code", "answered") for case, answer in zip(cases, refused, strict=True)}
        # The same is answered to who is what it says, and to nobody else.
        assert ("resources" in last) is (place == "client")
    assert codes == {case: code for case, (_, _, code, _) in ASKED.items()}
    # What ended each place's questions was refused too: the client's own, asked from elsewhere.
    wanted = dict(reasons + Counter({"other_identity": 1, "unknown_address": 1}))

    def more() -> dict[str, float]:
        after = counted()
        return {reason: after[reason] - before[reason] for reason in reasons}

    eventually(lambda: more() == wanted, lambda: f"{wanted}: {more()}")
    for case, (_, _, code, reason) in ASKED.items():
        metric = f'`autotls_discovery_refused_streams_total{{reason="{reason}"}}`'
        TABLE.record(case, "discovery", f"refused ({code})", metric if reason else "the handshake fails")


def asked(
    plane: Plane, enter: tuple[str, ...], identities: dict[str, Path], *jobs: dict[str, Any]
) -> list[dict[str, Any]]:
    address = plane.space.get("service", names.DISCOVERY)["spec"]["clusterIP"]
    with_files = [each | {"identity": each["identity"] and str(identities[each["identity"]])} for each in jobs]
    argv = [*enter, sys.executable, "-m", ASKER, address, str(names.XDS_PORT)]
    done = subprocess.run(
        argv, input=json.dumps(with_files), capture_output=True, text=True, check=True, timeout=1200, cwd=REPOSITORY
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


# Outbound.


def curl(meshed: Meshed, pod: str, service: str, path: str = "") -> str:
    address = meshed.home.get("service", service)["spec"]["clusterIP"]
    status = "curl --silent --max-time 120 --output /dev/null --write-out '%{http_code}'"
    return meshed.home.exec(pod, "sh", "-c", f"{status} http://{address}/{path} || true", container="app")


def outbound(meshed: Meshed, pod: str, service: str, **labels: str) -> float:
    return sum(outbound_series(meshed, pod, service, **labels).values())


def outbound_series(meshed: Meshed, pod: str, service: str, **labels: str) -> Series:
    address = meshed.home.get("pod", pod)["status"]["podIP"]
    wanted = {"dir": "outbound", "svc": f"{meshed.home.name}/{service}:80"} | labels
    return meshed.machine.series(address, names.STATUS_PORT, "envoy_autotls_rq", **wanted)


def never_by_tls(meshed: Meshed, service: str) -> bool:
    """Whether the client's proxy counted plaintext alone, at one moment."""
    return all('tls=""' in name for name in outbound_series(meshed, "client", service))


def test_a_pod_that_serves_another_identity_than_its_own_is_no_peer(meshed: Meshed) -> None:
    def tried() -> float:
        assert curl(meshed, "client", "impostor") == "200"
        return outbound(meshed, "client", "impostor", tls="", reason="tls_failed")

    eventually(tried, "a request that mutual TLS was tried for")
    cluster = f"{meshed.home.name}/impostor_80"

    def refused() -> float:
        assert curl(meshed, "client", "impostor") == "200"
        return meshed.metric(meshed.client(), "envoy_cluster_ssl_fail_verify_san", envoy_cluster_name=cluster)

    # A handshake that takes longer than a second ends before the name is looked at.
    eventually(refused, "a certificate that is refused for its name")
    assert never_by_tls(meshed, "impostor")
    marker = token()
    eventually(lambda: curl(meshed, "strict", "impostor") == "503", "the strict proxy is configured")
    assert [curl(meshed, "strict", "impostor", marker) for _ in range(5)] == ["503"] * 5
    assert outbound(meshed, "strict", "impostor", code="200") == 0
    assert marker not in meshed.home.kubectl("logs", "impostor", "--container=app")

    def stolen() -> str:
        return meshed.home.kubectl("logs", "impostor", f"--container={names.PROXY_CONTAINER}")

    eventually(lambda: "refused" in stolen(), lambda: f"a handshake that was refused: {stolen()}")
    assert "got" not in stolen()
    counted = "`envoy_cluster_ssl_fail_verify_san` of the client's proxy"
    TABLE.record(
        POSING[0], "outbound", "no peer: in plaintext",
        f'{counted}, `reason="tls_failed"`; not a byte by TLS to the other identity',
    )  # fmt: skip
    TABLE.record(POSING[1], "outbound", "refused (503)", f"{counted}; neither of its servers saw the request")


def test_a_forged_label_makes_nobody_a_peer_and_breaks_nothing(meshed: Meshed) -> None:
    def tried() -> float:
        assert curl(meshed, "client", "silent") == "200"
        return outbound(meshed, "client", "silent", tls="", reason="tls_failed")

    eventually(tried, "a request that mutual TLS was tried for")
    assert [curl(meshed, "client", "silent") for _ in range(5)] == ["200"] * 5
    assert never_by_tls(meshed, "silent")
    # Made together with the other one, so discovery knows it by now; not meshed, so nothing was configured.
    assert [curl(meshed, "client", "forged") for _ in range(5)] == ["200"] * 5
    assert outbound(meshed, "client", "forged") == 0
    answered = "every request answered"
    TABLE.record(POSING[2], "outbound", "no peer: in plaintext", f"discovery sends nothing of it; {answered}")
    TABLE.record(POSING[3], "outbound", "no peer: in plaintext", f'`reason="tls_failed"`; {answered}')


# The sidecar itself.


def trying(address: str) -> str:
    """A shell script that prints the status of each request to 15120, and how a connection to other ports ends (7:
    refused)."""
    request = "curl --silent --max-time 120 --path-as-is --output /dev/null --write-out '%{http_code} '"
    asked = [f"{request} -X {method} 'http://{address}:{names.STATUS_PORT}{path}'" for method, path in COMMANDS]
    ports = (names.OUTBOUND_PORT, names.INBOUND_PLAINTEXT_PORT, 15000, 9901)
    dialled = [f"curl --silent --max-time 120 http://{address}:{port}/ >/dev/null; printf '%s ' $?" for port in ports]
    return "; ".join(("set +e", *asked, *dialled))


def test_the_ports_of_a_sidecar_give_counters_and_nothing_else(meshed: Meshed) -> None:
    server = meshed.servers()[0]
    name, address = server["metadata"]["name"], server["status"]["podIP"]
    envoy = meshed.machine.envoy_of(server)
    # 7: refused.
    wanted = ["200"] * len(OPEN) + ["404"] * len(CLOSED) + ["7"] * 4
    assert meshed.run(trying(address), meshed.outside).split() == wanted
    own = meshed.home.exec(name, "sh", "-c", trying("127.0.0.1"), container="app").split()
    # 15101 is there for what is redirected; who dials it by hand is closed.
    assert own == [*wanted[:-4], own[-4], *["7"] * 3]
    assert own[-4] in ("52", "56")
    assert meshed.machine.envoy_of(server) == envoy
    evidence = "15120: `/ready` and `/metrics`, 404 for all else (`/quitquitquit`, `/config_dump`, ...);"
    TABLE.record(REACHING[0], "sidecar", "counters only", f"{evidence} 15101, 15106: refused")
    TABLE.record(REACHING[1], "sidecar", "counters only", f"{evidence} 15101 by hand: closed")


def test_the_admin_socket_is_reached_from_no_other_container(meshed: Meshed) -> None:
    server = meshed.servers()[0]["metadata"]["name"]
    socket = "/run/autotls/admin.sock"
    quit_by_socket = f"curl --silent --max-time 120 -X POST --unix-socket {socket} http://admin/quitquitquit; echo $?"
    assert meshed.home.exec(server, "sh", "-c", quit_by_socket, container="app").strip() == "7"
    # It is there, for the sidecar itself.
    meshed.home.exec(server, "test", "-S", socket, container=names.PROXY_CONTAINER)
    TABLE.record(REACHING[2], "sidecar", "not there", "the folder is mounted in the sidecar alone")
    # Its processes are seen, and what is in their file system is not.
    key = f"/var/run/secrets/autotls.io/..data/{names.TLS_PRIVATE_KEY_KEY}"
    script = (
        'pids=$(pgrep envoy); test -n "$pids"; id -u; for pid in $pids; do '
        f"cat /proc/$pid/root{key} >/dev/null 2>&1 && echo key; "
        f"curl --silent --max-time 120 --unix-socket /proc/$pid/root{socket} http://admin/server_info && echo socket; "
        "done; true"
    )
    assert meshed.home.exec("shared", "sh", "-ec", script, container="app").strip() == "0"
    TABLE.record(REACHING[3], "sidecar", "refused", "`/proc/<pid>/root` of another uid needs CAP_SYS_PTRACE")
