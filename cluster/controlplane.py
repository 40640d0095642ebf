"""etcd and the API server, for a whole cluster and for tests alone; controller manager and scheduler for a cluster."""

import datetime
import http.client
import json
import ssl
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cluster import kubeconfig, network
from cluster.pki import Authority, KeyPair, write_signing_key
from cluster.processes import Process, ProcessTable

API_PORT: Final = 6443
SERVICE_ADDRESS: Final = "10.96.0.1"
"""The first of network.SERVICES: where pods reach the API server."""
_ISSUER: Final = "https://kubernetes.default.svc.cluster.local"
_START_TIMEOUT_S: Final = 300.0
"""Far above the usual 4 s: a machine that also compiles is slow, and a wrong timeout would end a good start."""


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the three listeners are; the API server and etcd share an address space in tests, so all can be chosen."""

    api: int = API_PORT
    etcd: int = 2379
    etcd_peer: int = 2380


@dataclass(frozen=True, slots=True)
class ControlPlane:
    """Where one control plane runs and keeps its files. Commands are built here, started by who owns the processes."""

    folder: Path
    addresses: tuple[str, ...]
    """Where it is reached, primary first."""
    bind: str
    service_ranges: str
    ports: Ports = Ports()
    audited: bool = False
    extra_arguments: tuple[str, ...] = ()
    """Of the API server."""

    @property
    def pki(self) -> Path:
        return self.folder / "pki"

    @property
    def server(self) -> str:
        return f"https://{self.addresses[0]}:{self.ports.api}"

    @property
    def admin_kubeconfig(self) -> Path:
        return self.folder / "kubeconfig"

    def kubeconfig(self, user: str) -> Path:
        return self.pki / f"{user}.kubeconfig"

    def pair(self, name: str) -> KeyPair:
        return KeyPair.at(self.pki, name)


def write_files(plane: ControlPlane, now: datetime.datetime, *, nodes: Sequence[str] = ()) -> None:
    """Certificates, keys and kubeconfigs of every program; new on every start of a new cluster."""
    plane.pki.mkdir(parents=True, exist_ok=True, mode=0o700)
    authority = Authority(plane.pki, "ca", now)
    own_names = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local")
    names = (*plane.addresses, "127.0.0.1", SERVICE_ADDRESS, "localhost", *own_names)
    authority.server("apiserver", "kube-apiserver", names)
    authority.client("apiserver-kubelet-client", "kube-apiserver", ["system:masters"])
    # Another authority, so that no client certificate of the cluster can pass for the aggregation layer's proxy.
    Authority(plane.pki, "front-proxy-ca", now).client("front-proxy-client", "front-proxy-client")
    write_signing_key(plane.pki, "service-account")
    users = {
        "controller-manager": ("system:kube-controller-manager", ()),
        "scheduler": ("system:kube-scheduler", ()),
        "kube-proxy": ("system:kube-proxy", ()),
        **{node: (f"system:node:{node}", ("system:nodes",)) for node in nodes},
    }
    for user, (common_name, groups) in users.items():
        client = authority.client(user, common_name, groups)
        _write_kubeconfig(plane, plane.kubeconfig(user), client)
    for node in nodes:
        authority.server(f"{node}-serving", f"system:node:{node}", (node, *plane.addresses))
    _write_kubeconfig(plane, plane.admin_kubeconfig, authority.client("admin", "admin", ["system:masters"]))
    (plane.pki / "audit.json").write_text(json.dumps(_AUDIT_POLICY))


_AUDIT_POLICY: Final = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    # The webhook's audit annotations are visible nowhere else.
    "rules": [
        {"level": "Metadata", "verbs": ["create"], "resources": [{"group": "", "resources": ["pods"]}]},
        {"level": "None"},
    ],
}


def _write_kubeconfig(plane: ControlPlane, path: Path, client: KeyPair) -> None:
    kubeconfig.write(
        path, server=plane.server, authority=plane.pair("ca").certificate, client=client, name="autotls-dev"
    )


def etcd_command(plane: ControlPlane, binary: Path) -> list[str]:
    client = f"http://127.0.0.1:{plane.ports.etcd}"
    peer = f"http://127.0.0.1:{plane.ports.etcd_peer}"
    return [
        str(binary),
        f"--data-dir={plane.folder / 'etcd'}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        # A test cluster that loses its last writes when the machine dies has lost nothing; a disk flush for each write
        # would cost most of the API server's start.
        "--unsafe-no-fsync",
        "--log-level=warn",
    ]


def apiserver_command(plane: ControlPlane, binary: Path) -> list[str]:
    pki = plane.pki
    command = [
        str(binary),
        f"--etcd-servers=http://127.0.0.1:{plane.ports.etcd}",
        f"--bind-address={plane.bind}",
        f"--secure-port={plane.ports.api}",
        f"--advertise-address={plane.addresses[0]}",
        f"--service-cluster-ip-range={plane.service_ranges}",
        f"--cert-dir={pki / 'generated'}",
        f"--tls-cert-file={plane.pair('apiserver').certificate}",
        f"--tls-private-key-file={plane.pair('apiserver').key}",
        f"--client-ca-file={plane.pair('ca').certificate}",
        f"--service-account-issuer={_ISSUER}",
        f"--service-account-key-file={pki / 'service-account.pub'}",
        f"--service-account-signing-key-file={pki / 'service-account.key'}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        f"--kubelet-certificate-authority={plane.pair('ca').certificate}",
        f"--kubelet-client-certificate={plane.pair('apiserver-kubelet-client').certificate}",
        f"--kubelet-client-key={plane.pair('apiserver-kubelet-client').key}",
        # By name, exec and logs would wait for a DNS answer about the node that nobody gives.
        "--kubelet-preferred-address-types=InternalIP",
        f"--requestheader-client-ca-file={plane.pair('front-proxy-ca').certificate}",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-username-headers=X-Remote-User",
        f"--proxy-client-cert-file={plane.pair('front-proxy-client').certificate}",
        f"--proxy-client-key-file={plane.pair('front-proxy-client').key}",
    ]
    if plane.audited:
        command += [
            f"--audit-policy-file={pki / 'audit.json'}",
            f"--audit-log-path={plane.folder / 'logs' / 'audit.log'}",
        ]
    return [*command, *plane.extra_arguments]


def controller_manager_command(plane: ControlPlane, binary: Path) -> list[str]:
    ca = plane.pair("ca")
    return [
        str(binary),
        f"--kubeconfig={plane.kubeconfig('controller-manager')}",
        f"--authentication-kubeconfig={plane.kubeconfig('controller-manager')}",
        f"--authorization-kubeconfig={plane.kubeconfig('controller-manager')}",
        f"--service-account-private-key-file={plane.pki / 'service-account.key'}",
        f"--root-ca-file={ca.certificate}",
        f"--cluster-signing-cert-file={ca.certificate}",
        f"--cluster-signing-key-file={ca.key}",
        "--use-service-account-credentials",
        "--leader-elect=false",
        "--allocate-node-cidrs=false",
        # A machine that stands still must not lose its only node: all pods would be unready, and Services empty.
        "--node-monitor-grace-period=10m",
        # The default 20 a second makes a test that creates 1,000 ServiceAccounts wait a minute for their ConfigMaps.
        "--kube-api-qps=200",
        "--kube-api-burst=400",
    ]


def scheduler_command(plane: ControlPlane, binary: Path) -> list[str]:
    path = plane.kubeconfig("scheduler")
    return [
        str(binary),
        f"--kubeconfig={path}",
        f"--authentication-kubeconfig={path}",
        f"--authorization-kubeconfig={path}",
        "--leader-elect=false",
    ]


def start_storage(plane: ControlPlane, table: ProcessTable, binary: Path, enter: Sequence[str] = ()) -> Process:
    """etcd; the API server retries until it answers, so nobody waits here. Raises StartError."""
    return table.start("etcd", etcd_command(plane, binary), enter=enter)


def start_apiserver(plane: ControlPlane, table: ProcessTable, binary: Path, enter: Sequence[str] = ()) -> Process:
    """The API server, ready to answer everything. Raises StartError."""
    process = table.start("kube-apiserver", apiserver_command(plane, binary), enter=enter)
    table.wait(process, lambda: is_ready(plane), timeout_s=_START_TIMEOUT_S)
    return process


def is_ready(plane: ControlPlane) -> bool:
    """Whether /readyz says so to the administrator, over a verified connection."""
    context = ssl.create_default_context(cafile=str(plane.pair("ca").certificate))
    admin = plane.pair("admin")
    context.load_cert_chain(admin.certificate, admin.key)
    # A handler list without ProxyHandler: the shell's http_proxy is not for a server on this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    try:
        with opener.open(f"{plane.server}/readyz", timeout=20) as answer:
            return bool(answer.status == 200)
    except (OSError, http.client.HTTPException):  # URLError is an OSError
        return False


def service_ranges(*, ipv6: bool) -> str:
    return f"{network.SERVICES},{network.SERVICES_V6}" if ipv6 else network.SERVICES
