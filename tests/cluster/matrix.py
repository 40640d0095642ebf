"""The traffic matrix: servers that speak every protocol behind every kind of name; clients in the mesh and not."""

import json
import subprocess
from collections.abc import Generator, Iterable, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from mesh import names
from tests.cluster.kubectl import OPTED_IN, Object, Space, a_pod, eventually, manifest_text, space, statuses_of
from tests.cluster.machine import Machine, Series, growth
from tests.cluster.mutual import COUNTER
from tests.fixtures_cluster import RunningCluster

FILES: Final = Path(__file__).with_name("protocols")
CLIENT: Final = (FILES / "client.py").read_text()
DIRECT, OBSERVED, UNMESHED = "direct", "observed", "unmeshed"


@dataclass(frozen=True, slots=True)
class Protocol:
    """What `protocols/client.py` speaks under that name, on a Service's port; `counted` as so many by the proxies."""

    name: str
    port: str
    counted: int = 1
    hidden: bool = False
    """Whether a marker cannot be read on the wire even without us."""


PROTOCOLS: Final = (
    Protocol("HTTP/1.1", "http"),
    Protocol("h2c", "h2"),
    Protocol("gRPC, unary", "grpc"),
    Protocol("gRPC, streams", "grpc", counted=3),
    Protocol("WebSocket", "ws"),
    Protocol("bytes", "bytes"),
    Protocol("SMTP", "smtp"),
    Protocol("SMTP where HTTP is likely", "web-mail"),
    Protocol("HTTPS of the app", "https", hidden=True),
)
SERVICE, HEADLESS, POD_NAME, POD = "ClusterIP", "headless Service", "StatefulSet's pod name", "pod address"
SERVICE_V6, POD_V6 = "IPv6 ClusterIP", "IPv6 pod address"
NODE_PORT, EXTERNAL, ITSELF = "NodePort", "external address", "its own Service"
OUTSIDE: Final = "198.51.100.2"
"""Of a machine outside the cluster (`outside.py`); RFC 5737 keeps it for examples."""
NAMED: Final = (SERVICE, HEADLESS, POD_NAME, POD, SERVICE_V6, POD_V6)


@dataclass(frozen=True, slots=True)
class Counts:
    """What a client's proxy and a server's counted by mutual TLS of each other, and what the client's of plaintext."""

    outbound: Series
    inbound: Series
    plaintext: Series

    def since(self, before: "Counts") -> tuple[float, float, float]:
        return (
            growth(before.outbound, self.outbound),
            growth(before.inbound, self.inbound),
            growth(before.plaintext, self.plaintext),
        )


@dataclass(frozen=True, slots=True)
class Matrix:
    """`home` opted in and has the servers `direct` and `observed`; `away` did not and has the server `unmeshed`.

    Both have a pod `client`; `home` has a pod `bystander` that is not meshed, behind Service `mixed` with `direct`.
    """

    home: Space
    away: Space
    machine: Machine
    certificate: str
    """The applications' own, for shop.example, in PEM."""
    objects: Mapping[tuple[str, str, str], Object]
    """Pods and Services as they were when all were Ready, by kind, namespace and name: nothing changes them."""
    processes: Mapping[str, int]
    """As Machine.processes gives them."""

    def space_of(self, server: str) -> Space:
        return self.away if server == UNMESHED else self.home

    def pod(self, server: str) -> Object:
        return self.objects["Pod", self.space_of(server).name, f"{server}-0"]

    def client(self, meshed: bool) -> Object:
        return self.objects["Pod", (self.home if meshed else self.away).name, "client"]

    def service(self, server: str, suffix: str = "") -> Object:
        return self.objects["Service", self.space_of(server).name, f"{server}{suffix}"]

    def enter(self, pod: Object) -> tuple[str, ...]:
        """Command prefix that runs in the pod's network, as the application would."""
        container = statuses_of(pod)["app"]["containerID"].removeprefix("containerd://")
        return ("nsenter", f"--net=/proc/{self.processes[container]}/ns/net")

    def target(self, server: str, path: str) -> tuple[str, dict[str, int]]:
        """Host, and the port of each port's name."""
        domain = f"{self.space_of(server).name}.svc.cluster.local"
        match path:
            case "ClusterIP" | "its own Service":
                return f"{server}.{domain}", ports_of(self.service(server))
            case "IPv6 ClusterIP":
                found = self.service(server, "-v6")
                return found["spec"]["clusterIP"], ports_of(found)
            case "NodePort":
                found = self.service(server, "-node")
                return str(self.machine.node.link.node), ports_of(found, "nodePort")
        host = {
            "headless Service": lambda: f"{server}-pods.{domain}",
            "StatefulSet's pod name": lambda: f"{server}-0.{server}-pods.{domain}",
            "pod address": lambda: addresses_of(self.pod(server))[0],
            "IPv6 pod address": lambda: addresses_of(self.pod(server))[1],
            "external address": lambda: OUTSIDE,
        }[path]()
        return host, ports_of(self.service(server, "-pods"))

    def dial(self, pod: Object, jobs: Iterable[Mapping[str, Any]]) -> list[Object]:
        """What each job was answered in the pod's application container. Fails the test when one failed."""
        done = self.machine.cluster.kubectl(
            *("--namespace", pod["metadata"]["namespace"], "exec", "--stdin", pod["metadata"]["name"]),
            *("--container=app", "--", "python3", "-c", CLIENT),
            stdin=json.dumps([{"certificate": self.certificate, **job} for job in jobs]),
        )
        answers = [json.loads(line) for line in done.splitlines()]
        assert not [answer for answer in answers if "error" in answer], answers
        return answers

    def jobs(self, server: str, path: str, markers: Mapping[str, str]) -> list[Object]:
        """One for each protocol."""
        host, ports = self.target(server, path)
        return [
            {"protocol": each.name, "host": host, "port": ports[each.port], "marker": markers[each.name]}
            for each in PROTOCOLS
        ]

    def counts(self, client: Object, server: Object | None = None) -> Counts:
        """Of two pods that have a proxy; without a server what concerns it is empty."""
        sent = self._series(client, dir="outbound")
        peer = f'peer="{identity_of(server)}"' if server else None
        return Counts(
            outbound={name: value for name, value in sent.items() if peer and peer in name},
            inbound=self._series(server, dir="inbound", peer=identity_of(client)) if server else {},
            plaintext={name: value for name, value in sent.items() if 'tls="TLS' not in name},
        )

    def inbound(self, server: Object, **labels: str) -> Series:
        """Whatever the server's proxy counted; where it is `observed` the kubelet's probes too, from the node."""
        return self._series(server, dir="inbound", **labels)

    def _series(self, pod: Object, **labels: str) -> Series:
        return self.machine.series(addresses_of(pod)[0], names.STATUS_PORT, COUNTER, **labels)


def ports_of(service: Object, field: str = "port") -> dict[str, int]:
    return {port["name"]: port[field] for port in service["spec"]["ports"]}


def addresses_of(pod: Object) -> list[str]:
    return [each["ip"] for each in pod["status"]["podIPs"]]


def identity_of(pod: Object) -> str:
    return f"spiffe://cluster.local/ns/{pod['metadata']['namespace']}/sa/{pod['spec']['serviceAccountName']}"


def objects_of(cluster: RunningCluster, server: str, annotations: Mapping[str, str]) -> list[Object]:
    """Everything of one server: what the manifest says, and its ClusterIP Service as NodePort and by IPv6."""
    text = manifest_text(cluster, "matrix").replace("@NAME@", server)
    objects: list[Object] = list(yaml.safe_load_all(text))
    service = next(each for each in objects if each["metadata"]["name"] == server and each["kind"] == "Service")
    for suffix, changes in (("node", {"type": "NodePort"}), ("v6", {"ipFamilies": ["IPv6"]})):
        if suffix == "node" or cluster.ipv6:
            objects.append({**service, "metadata": {"name": f"{server}-{suffix}"}, "spec": service["spec"] | changes})
    stateful = next(each for each in objects if each["kind"] == "StatefulSet")
    stateful["spec"]["template"]["metadata"]["annotations"] = dict(annotations)
    return objects


def self_signed(folder: Path) -> tuple[str, str]:
    """Certificate and key of shop.example, in PEM."""
    files = folder / "tls.crt", folder / "tls.key"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-subj", "/CN=shop.example", "-addext", "subjectAltName=DNS:shop.example", "-days", "2"),
            *("-out", str(files[0]), "-keyout", str(files[1])),
        ],
        capture_output=True,
        check=True,
        timeout=60,
    )
    return files[0].read_text(), files[1].read_text()


@contextmanager
def matrix_pods(cluster: RunningCluster, folder: Path) -> Generator[Matrix]:
    """All servers and clients, Ready, and the mesh configured."""
    certificate, key = self_signed(folder)
    shared: list[Object] = [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "files"},
            "data": {file.name: file.read_text() for file in FILES.iterdir() if file.is_file()},
        },
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "certificate"},
            "type": "kubernetes.io/tls",
            "stringData": {"tls.crt": certificate, "tls.key": key},
        },
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "client"}},
        a_pod(cluster, "client", spec={"serviceAccountName": "client"}),
    ]
    with ExitStack() as stack:
        home = stack.enter_context(space(cluster, "matrix", labels=OPTED_IN))
        away = stack.enter_context(space(cluster, "matrix-away"))
        direct = objects_of(cluster, DIRECT, {})
        observed = objects_of(cluster, OBSERVED, {f"{names.SETTING_PREFIX}inbound": "observed"})
        identities = [each for each in (*shared, *direct, *observed) if each["kind"] == "ServiceAccount"]
        home.apply(*identities)
        for account in (DIRECT, OBSERVED, "client"):
            secret = names.identity_secret_name(account)
            eventually(lambda secret=secret: home.find("secret", secret), f"Secret {secret}")
        home.apply(*shared, *direct, *observed, *mixed(direct))
        away.apply(*shared, *objects_of(cluster, UNMESHED, {}))
        home.wait_ready("client", f"{DIRECT}-0", f"{OBSERVED}-0", "bystander")
        away.wait_ready("client", f"{UNMESHED}-0")
        objects: dict[tuple[str, str, str], Object] = {
            (each["kind"], where.name, each["metadata"]["name"]): each
            for where in (home, away)
            for each in where.get("pods,services")["items"]
        }
        machine = Machine(cluster)
        found = Matrix(home, away, machine, certificate, objects, machine.processes())
        for server in (DIRECT, OBSERVED):
            wait_meshed(found, server)
        yield found


def mixed(direct: list[Object]) -> list[Object]:
    """A pod like the server's but not meshed, and a Service in front of both."""
    stateful = next(each for each in direct if each["kind"] == "StatefulSet")
    service = next(each for each in direct if each["metadata"]["name"] == DIRECT and each["kind"] == "Service")
    template = stateful["spec"]["template"]
    template["metadata"]["labels"]["mixed"] = "yes"
    labels = {"mixed": "yes", names.INJECT_LABEL: names.INJECT_DISABLED}
    bystander = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "bystander", "labels": labels}}
    spec = service["spec"] | {"selector": {"mixed": "yes"}}
    return [{**bystander, "spec": template["spec"]}, {**service, "metadata": {"name": "mixed"}, "spec": spec}]


def wait_meshed(matrix: Matrix, server: str) -> None:
    """By every name of the server, a few connections in a row went by mutual TLS: every proxy is configured."""
    client, pod = matrix.client(meshed=True), matrix.pod(server)
    targets = [matrix.target(server, path) for path in (SERVICE, POD)]
    jobs = [
        {"protocol": "bytes", "host": host, "port": ports["bytes"], "marker": "configured"} for host, ports in targets
    ]

    def configured() -> bool:
        before = matrix.counts(client, pod)
        matrix.dial(client, jobs * 2)
        return matrix.counts(client, pod).since(before) == (4, 4, 0)

    eventually(configured, f"connections to {server} by mutual TLS")
