"""Clusters and counters to make tables from, in the words of Kubernetes and of the proxies."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from discovery.kinds import Service
from mesh import names, series
from telemetry.exposition import UPTIME, Series, parse, series_of
from telemetry.kinds import SeenNode, SeenPod
from telemetry.ledger import Ledger
from telemetry.measurement import measurement
from telemetry.reasons import cluster_label
from telemetry.workloads import Inventory, inventory

NODE_ADDRESS = "192.0.2.1"
BUCKETS = (1000.0, 5000.0, 10000.0, 50000.0)
Object = dict[str, Any]


def pod_object(
    name: str,
    address: str,
    *,
    namespace: str = "shop",
    owner: tuple[str, str] | None = None,
    meshed: bool = True,
    observed: bool = False,
    redirected: bool = True,
    labels: dict[str, str] | None = None,
    probed: int | None = None,
    skipped: str = "",
    account: str = "",
) -> Object:
    """`owner` is kind and name of its controller; the ServiceAccount has the pod's name unless it is given."""
    env = {
        "AUTOTLS_INBOUND": "observed" if observed else "direct",
        "AUTOTLS_REDIRECT": "on" if redirected else "off",
        "AUTOTLS_SKIP_INBOUND_PORTS": skipped,
    }
    proxy = {"name": names.PROXY_CONTAINER, "env": [{"name": key, "value": value} for key, value in env.items()]}
    app: Object = {"name": "app", "ports": [{"containerPort": 8080, "name": "http"}]}
    if probed:
        app["readinessProbe"] = {"httpGet": {"port": "http" if probed == 8080 else probed}}
    mesh_labels = {names.MESH_LABEL: "autotls"} if meshed else {}
    metadata: Object = {
        "annotations": {names.IDENTITY_ANNOTATION: identity(account or name, namespace)} if meshed else {},
        "name": name,
        "namespace": namespace,
        "uid": f"uid-{name}",
        "labels": mesh_labels | (labels or {}),
    }
    if owner:
        metadata["ownerReferences"] = [{"kind": owner[0], "name": owner[1], "uid": "x", "controller": True}]
    running = [{"name": names.PROXY_CONTAINER, "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {
            "containers": [app],
            "initContainers": [proxy] if meshed else [],
            "serviceAccountName": account or name,
        },
        "status": {
            "phase": "Running",
            "podIP": address,
            "podIPs": [{"ip": address}],
            "initContainerStatuses": running if meshed else [],
        },
    }


def deployment_pod(deployment: str, address: str, number: int = 0, **more: Any) -> Object:
    digest = "5d4f8c7b9"
    labels = {"pod-template-hash": digest, "app": deployment} | more.pop("labels", {})
    owner = ("ReplicaSet", f"{deployment}-{digest}")
    return pod_object(
        f"{deployment}-{digest}-{number}", address, owner=owner, labels=labels, account=deployment, **more
    )


def service_object(
    name: str, address: str, *, namespace: str = "shop", port: int = 80, app: str = "", **spec: Any
) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"clusterIP": address, "selector": {"app": app or name}, "ports": [{"port": port}], **spec},
    }


def node_object(address: str = NODE_ADDRESS, pod_range: str = "10.0.0.0/24") -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": "node"},
        "spec": {"podCIDRs": [pod_range]},
        "status": {"addresses": [{"type": "InternalIP", "address": address}]},
    }


def cluster_of(pods: Iterable[Object], services: Iterable[Object] = (), nodes: Iterable[Object] = ()) -> Inventory:
    return inventory(
        [msgspec.convert(pod, SeenPod) for pod in pods],
        [msgspec.convert(each, Service) for each in services],
        [msgspec.convert(each, SeenNode) for each in nodes],
    )


class Counters:
    """What one proxy counted. Each call is one request or connection, or `times` of them."""

    def __init__(self) -> None:
        self.samples: Counter[tuple[str, tuple[tuple[str, str], ...]]] = Counter()

    def _add(self, name: str, value: int, labels: dict[str, str]) -> None:
        # Sorted, and without empty ones: neither means anything in the text of a proxy.
        self.samples[series.EXPOSED + name, tuple(sorted((k, v) for k, v in labels.items() if v))] += value

    def _bytes(self, labels: dict[str, str], times: int) -> None:
        self._add(series.RECEIVED, 100 * times, labels)
        self._add(series.SENT, 1000 * times, labels)

    def _duration(self, labels: dict[str, str], times: int, us: int) -> None:
        self._add(f"{series.REQUEST_US}_count", times, labels)
        for bound in (*BUCKETS, float("inf")):
            self._add(f"{series.REQUEST_US}_bucket", times if us <= bound else 0, {**labels, "le": str(bound)})

    def outbound(
        self,
        dst: str,
        *,
        tls: bool = True,
        reason: str = "",
        svc: str = "shop/web:80",
        peer: str = "",
        proto: str = "HTTP/1.1",
        code: str = "200",
        grpc: str = "",
        authority: str = "",
        times: int = 1,
        us: int = 3000,
    ) -> "Counters":
        to = {"dir": "outbound", "dst": dst, "reason": reason, "svc": svc, "tls": "TLSv1.2" if tls else ""}
        self._add(series.REQUESTS, times, {**to, "proto": proto, "peer": peer, "code": code, "grpc": grpc})
        if svc == series.PASSTHROUGH:
            self._bytes({"dir": "outbound", "dst": dst}, times)
        else:
            self.sent(svc, times)
        if proto != "TCP":
            self._duration({**to, "authority": authority, "code": code, "grpc": grpc}, times, us)
        return self

    def sent(self, svc: str, times: int = 1) -> "Counters":
        """Bytes of a Service, as Envoy's cluster counts them."""
        label = {series.CLUSTER: cluster_label(svc)}
        self.samples[series.CLUSTER_SENT, tuple(label.items())] += 100 * times
        self.samples[series.CLUSTER_RECEIVED, tuple(label.items())] += 1000 * times
        return self

    def inbound(
        self, peer: str, *, port: int = 8080, proto: str = "HTTP/1.1", code: str = "200", times: int = 1, us: int = 3000
    ) -> "Counters":
        who = {"dir": "inbound", "peer": peer, "port": str(port)}
        self._add(series.REQUESTS, times, {**who, "tls": "TLSv1.2", "proto": proto, "code": code})
        self._bytes(who, times)
        if proto != "TCP":
            self._duration(who, times, us)
        return self

    def plaintext(self, src: str, *, port: int = 8080, times: int = 1) -> "Counters":
        """What an `observed` proxy counts of a connection in plaintext."""
        who = {"dir": "inbound", "src": src, "port": str(port)}
        self._add(series.REQUESTS, times, {**who, "proto": "TCP"})
        self._bytes(who, times)
        return self

    def counted(self) -> list[Series]:
        return series_of({key: value for key, value in parse(self.text()).items() if key != UPTIME})

    def text(self, *, uptime: float = 100.0) -> bytes:
        """As the proxy would answer."""
        lines = [f"envoy_server_uptime{{}} {uptime:g}"]
        for (name, labels), value in self.samples.items():
            # The bound comes last, as Envoy writes it; so do its escapes look.
            ordered = sorted(labels, key=lambda pair: pair[0] == "le")
            lines.append(name + "{" + ",".join(f'{k}="{escaped(v)}"' for k, v in ordered) + "} " + str(value))
        return ("\n".join(lines) + "\n").encode()


def escaped(value: str) -> str:
    """As Envoy writes a label's value (source/server/admin/prometheus_stats.cc, sanitizeValue)."""
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def identity(account: str, namespace: str = "shop") -> str:
    return f"spiffe://cluster.local/ns/{namespace}/sa/{account}"


def book_of(cluster: Inventory, counters: dict[str, Counters]) -> Ledger:
    """The ledger when the proxies of these pods (by name; in namespace `shop`) counted that."""
    return measurement(cluster, {f"shop/{pod}": each.counted() for pod, each in counters.items()}, 10.0).book


def names_of(rows: Sequence[Any]) -> list[str]:
    return [row.name for row in rows]
