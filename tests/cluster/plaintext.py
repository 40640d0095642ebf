"""One namespace in which every reason for plaintext is at work, each between a client and a server of its own."""

import base64
import subprocess
from collections.abc import Generator, Iterable
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from mesh import names
from mesh.reasons import Plaintext
from telemetry.reasons import cluster_label
from tests.cluster.kubectl import OPTED_IN, Object, Space, eventually, space
from tests.cluster.kubectl import a_pod as an_idle_pod
from tests.cluster.machine import Machine, Watch, watching
from tests.cluster.matrix import OUTSIDE
from tests.cluster.mutual import COUNTER
from tests.cluster.outside import outside_machine, serving_outside
from tests.cluster.plane import a_pod, an_account
from tests.discovery.certificates import ControlPlaneAuthority
from tests.discovery.objects import identity
from tests.fixtures_cluster import RunningCluster

CLIENT: Final = "client"
# Like a NetworkPolicy that forgets a port: the CNI of this cluster enforces none.
_NO_PEERS: Final = (
    f"table inet reasons {{ chain in {{ type filter hook input priority 0;"
    f" tcp dport {names.INBOUND_TLS_PORT} ct state new drop; }}; }}"
)
_NO_DISCOVERY: Final = (
    f"table inet reasons {{ chain out {{ type filter hook output priority 0; tcp dport {names.XDS_PORT} drop; }};"
    f" chain through {{ type filter hook forward priority -10;"
    f" tcp dport {names.XDS_PORT} ct state new drop; }}; }}"
)
_CONFIGURED: Final = "envoy_listener_manager_lds_update_success"
_FAILED: Final = ("envoy_cluster_upstream_cx_connect_fail",)
_HANDSHAKE_FAILED: Final = ("envoy_cluster_ssl_connection_error", "envoy_cluster_ssl_fail_verify_error")


@dataclass(frozen=True, slots=True)
class Scene:
    """Plaintext for that reason: who dials, and what was done to whom so that it happens.

    `observed`: the client's own proxy cannot tell a tap, so the server's observes its plaintext and is tapped.
    """

    reason: Plaintext
    how: str
    client: str = CLIENT
    observed: bool = False

    @property
    def server(self) -> str:
        """The name of pod and Service."""
        return self.reason.replace("_", "-")


SCENES: Final = (
    Scene(Plaintext.NOT_MESHED, "the server's pod opted out"),
    Scene(Plaintext.SKIPPED_PORT, "`skip-inbound-ports` on the server's pod"),
    Scene(
        Plaintext.NO_IDENTITY_CLIENT,
        "an empty Secret that is not ours has the name of the client's identity",
        client="nameless",
        observed=True,
    ),
    Scene(
        Plaintext.NO_IDENTITY_SERVER,
        "an empty Secret that is not ours has the name of the server's identity",
    ),
    Scene(
        Plaintext.HANDSHAKE_FAILED,
        "the Secret of the server's identity holds a certificate of another root",
    ),
    Scene(Plaintext.UNREACHABLE, "nftables drops 15108 at the server's pod"),
    Scene(Plaintext.NO_REDIRECT, "PodSecurity `baseline` in the client's namespace", client="bare", observed=True),
    Scene(Plaintext.UNSUPPORTED_SERVICE, "the Service has `sessionAffinity: ClientIP`"),
    Scene(Plaintext.OUT_OF_REACH, "`reach` of the client's pod names another namespace", client="narrow"),
    Scene(Plaintext.EXTERNAL, "a machine outside of the cluster is dialled"),
    Scene(
        Plaintext.DISCOVERY_UNAVAILABLE,
        "nftables drops 15110 from the client's start on",
        client="cut-off",
        observed=True,
    ),
)


@dataclass(frozen=True, slots=True)
class Stage:
    """`home` has all pods but the client `bare`, which is in `guarded`. `requests` go on, by reason."""

    home: Space
    guarded: Space
    machine: Machine
    requests: dict[Plaintext, Watch]

    @property
    def cluster(self) -> RunningCluster:
        return self.home.cluster

    def where(self, client: str) -> Space:
        return self.guarded if client == "bare" else self.home

    def client(self, scene: Scene) -> str:
        """`namespace/name`."""
        return f"{self.where(scene.client).name}/{scene.client}"

    def metric(self, pod: str, name: str, **labels: str) -> float:
        address = self.home.get("pod", pod)["status"]["podIP"]
        return self.machine.metric(address, names.STATUS_PORT, name, **labels)

    def target(self, scene: Scene) -> tuple[str, int]:
        if scene.reason is Plaintext.EXTERNAL:
            return OUTSIDE, 8080
        return self.home.get("service", scene.server)["spec"]["clusterIP"], 80


@contextmanager
def staged(cluster: RunningCluster, folder: Path) -> Generator[Stage]:
    """Once each reason is at work: what was sent before a proxy had its configuration is over, and not of interest."""
    baseline = {**OPTED_IN, "pod-security.kubernetes.io/enforce": "baseline"}
    with ExitStack() as stack:
        home = stack.enter_context(space(cluster, "reasons", labels=OPTED_IN))
        guarded = stack.enter_context(space(cluster, "guarded", labels=baseline))
        made = Stage(home, guarded, Machine(cluster), {})
        _accounts(made)
        _servers(made)
        _clients(made)
        outside = stack.enter_context(outside_machine(made.machine))
        stack.enter_context(serving_outside(outside, home.get("pod", "not-meshed")))
        for scene in SCENES:
            pod = made.where(scene.client).get("pod", scene.client)
            enter = ("nsenter", f"--net=/proc/{made.machine.process_of(pod, 'app')}/ns/net")
            address, port = made.target(scene)
            job = {"address": address, "port": port}
            lines = folder / scene.server
            made.requests[scene.reason] = stack.enter_context(watching(enter, job, lines))
        _at_work(made)
        yield made


def _accounts(stage: Stage) -> None:
    """The Secrets first: the CA leaves alone what is not its own."""
    home = stage.home
    bundle = eventually(lambda: home.find("configmap", names.TRUST_BUNDLE_CONFIG_MAP), "the trust bundle")
    leaf = ControlPlaneAuthority("stranger").leaf(identity("handshake-failed", home.name))
    stranger = {**leaf.files(), names.TRUST_BUNDLE_KEY: bundle["data"][names.TRUST_BUNDLE_KEY].encode()}
    for account, files in (("nameless", {}), ("no-identity-server", {}), ("handshake-failed", stranger)):
        data = {key: base64.b64encode(value).decode() for key, value in files.items()}
        metadata = {"name": names.identity_secret_name(account)}
        home.apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data})
        home.apply(an_account(account))
    for each in (home, stage.guarded):
        secret = names.identity_secret_name("default")
        eventually(lambda each=each, secret=secret: each.find("secret", secret), f"Secret {secret}")


def _servers(stage: Stage) -> None:
    objects: list[Object] = []
    scenes = [scene for scene in SCENES if scene.reason is not Plaintext.EXTERNAL]
    for scene in scenes:
        spec: dict[str, Any] = {"selector": {"app": scene.server}, "ports": [{"port": 80, "targetPort": 8080}]}
        if scene.reason is Plaintext.UNSUPPORTED_SERVICE:
            spec["sessionAffinity"] = "ClientIP"
        objects.append({"apiVersion": "v1", "kind": "Service", "metadata": {"name": scene.server}, "spec": spec})
        own = scene.reason in (Plaintext.NO_IDENTITY_SERVER, Plaintext.HANDSHAKE_FAILED)
        labels = {"app": scene.server}
        if scene.reason is Plaintext.NOT_MESHED:
            labels[names.INJECT_LABEL] = names.INJECT_DISABLED
        annotations = {}
        if scene.observed:
            annotations[f"{names.SETTING_PREFIX}inbound"] = "observed"
        if scene.reason is Plaintext.SKIPPED_PORT:
            annotations[f"{names.SETTING_PREFIX}skip-inbound-ports"] = "8080"
        account = scene.server if own else "default"
        objects.append(a_pod(stage.cluster, scene.server, account, labels=labels, annotations=annotations))
    stage.home.apply(*objects)
    stage.home.wait_ready(*(scene.server for scene in scenes))
    _nft(_network_of(stage, "unreachable"), _NO_PEERS)


def _clients(stage: Stage) -> None:
    cluster, home = stage.cluster, stage.home
    reach = {f"{names.SETTING_PREFIX}reach": "nowhere"}
    home.apply(
        an_idle_pod(cluster, CLIENT),
        an_idle_pod(cluster, "narrow", annotations=reach),
        an_idle_pod(cluster, "nameless", spec={"serviceAccountName": "nameless"}),
    )
    stage.guarded.apply(an_idle_pod(cluster, "bare"))
    home.wait_ready(CLIENT, "narrow", "nameless")
    stage.guarded.wait_ready("bare")
    # Its address is not known before it starts, so for that while nobody opens a new connection to discovery.
    _nft(cluster.enter_network, _NO_DISCOVERY)
    try:
        home.apply(an_idle_pod(cluster, "cut-off"))
        home.wait_ready("cut-off")
        _nft(_network_of(stage, "cut-off"), _NO_DISCOVERY)
    finally:
        _nft(cluster.enter_network, "delete table inet reasons")


def _network_of(stage: Stage, pod: str) -> tuple[str, ...]:
    process = stage.machine.process_of(stage.home.get("pod", pod), "app")
    return ("nsenter", f"--net=/proc/{process}/ns/net")


def _nft(enter: Iterable[str], rules: str) -> None:
    done = subprocess.run([*enter, "nft", rules], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def _at_work(stage: Stage) -> None:
    """The clients that reach discovery are configured, and of each failure there is more than of a slow machine's."""
    for pod in (CLIENT, "narrow"):
        eventually(lambda pod=pod: stage.metric(pod, _CONFIGURED) > 0, f"the configuration of {pod}")
    for reason in (Plaintext.NO_IDENTITY_SERVER, Plaintext.HANDSHAKE_FAILED, Plaintext.UNREACHABLE):
        eventually(lambda reason=reason: _failed_as(stage, reason), f"connections that fail as {reason}")
    for watch in stage.requests.values():
        watch.wait_for_more()


def _failed_as(stage: Stage, reason: Plaintext) -> bool:
    service = f"{stage.home.name}/{reason.replace('_', '-')}:80"
    if not stage.metric(CLIENT, COUNTER, dir="outbound", svc=service, reason=Plaintext.TLS_FAILED.value):
        return False

    def attempts(*series: str) -> float:
        return sum(stage.metric(CLIENT, name, envoy_cluster_name=cluster_label(service)) for name in series)

    slow = attempts("envoy_cluster_upstream_cx_connect_timeout")
    if reason is Plaintext.UNREACHABLE:
        return slow > 0
    return attempts(*(_HANDSHAKE_FAILED if reason is Plaintext.HANDSHAKE_FAILED else _FAILED)) > slow
