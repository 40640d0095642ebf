"""A cluster in memory with a healthy installation, whose API server really calls the webhook's functions."""

import base64
import json
from datetime import datetime, timedelta
from typing import Any

import jsonpatch
import msgspec

from ca.authority import Authority
from ca.bundle import trust_bundle_config_map
from ca.secret import Owner, identity_secret, tls_secret
from cli.chart import Wanted, render_shipped
from cli.checks.model import Outcome, Verdict
from cli.checks.runner import BEFORE_INSTALLING, INSTALLED, run_checks
from cli.checks.view import View
from cli.commands.install import namespace_manifest
from cli.document import parse_stream
from kube import errors
from kube.client import Query
from kube.kinds import resource_of
from mesh import names
from mesh.config import MeshConfig, parse_config
from mesh.pod import Namespace, ObjectMeta, Pod
from mesh.svid import TrustBundle, certificate_pem, private_key_pem
from tests.ca.authorities import CONSTRAINTS, LIFETIMES, T0, TRUST_DOMAIN, a_leaf, a_root, an_issuer, secret_data
from tests.fakes.kubeapi import FakeApi
from webhook.decision import Inject, decide
from webhook.patch import build_patch

# The fake API server stamps every object with one time; the certificates' clock is another, so `now` follows it.
NOW = T0 + timedelta(hours=1)
OWNER = Owner("autotls")


def proxy_metrics(*, connected: int = 1, leaf_ends: datetime = T0 + LIFETIMES.leaf, uptime_s: int = 3600) -> str:
    """What a proxy says, as far as `check` asks; by default it serves the leaf of `Authorities.identity`."""
    name = "envoy_listener_ssl_certificate_expiration_unix_time_seconds"
    return (
        f"# TYPE envoy_control_plane_connected_state gauge\nenvoy_control_plane_connected_state{{}} {connected}\n"
        f'{name}{{envoy_tls_certificate="leaf",envoy_listener_address="inbound_mtls"}} {int(leaf_ends.timestamp())}\n'
        f'{name}{{envoy_tls_certificate="roots",envoy_listener_address="inbound_mtls"}} 2100000000\n'
        f"envoy_server_uptime{{}} {uptime_s}\n"
    )


class Cluster(FakeApi):
    """With admission, access reviews and a version; `webhook` False is a webhook that does not answer."""

    def __init__(self) -> None:
        super().__init__()
        self.webhook = True
        self.version_text = "v1.37.2"
        self.refused: set[str] = set()
        self.clock = NOW
        self.config = MeshConfig()
        # Pod -> what its proxy says on /metrics; an exception is raised instead.
        self.metrics: dict[str, str | Exception] = {}

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Query = (),
        body: bytes | None = None,
        content_type: str = "application/json",
        timeout_s: float = 15.0,
    ) -> bytes:
        if path == "/version":
            await self.faults.meet(method, path, body, timeout_s)
            return json.dumps({"gitVersion": self.version_text}).encode()
        if path.endswith("/selfsubjectaccessreviews"):
            asked = json.loads(body or b"")["spec"]["resourceAttributes"]
            return json.dumps({"status": {"allowed": asked["resource"] not in self.refused}}).encode()
        if path.endswith(f":{names.STATUS_PORT}/proxy/metrics"):
            self.requests.append((method, path))
            await self.faults.meet(method, path, body, timeout_s)
            said = self.metrics[path.split("/")[6].partition(":")[0]]
            if isinstance(said, Exception):
                raise said
            return said.encode()
        if method == "POST" and path.endswith("/pods"):
            body = self._admitted(path.split("/")[4], body or b"")
        answer = await super().request(
            method, path, query=query, body=body, content_type=content_type, timeout_s=timeout_s
        )
        if method == "POST":
            stamped = json.loads(answer)
            stamped["metadata"]["creationTimestamp"] = self.clock.strftime("%Y-%m-%dT%H:%M:%SZ")
            return json.dumps(stamped).encode()
        return answer

    def _admitted(self, namespace: str, body: bytes) -> bytes:
        value = json.loads(body)
        pod = msgspec.convert(value, Pod)
        if not self.webhook:
            if pod.metadata.label(names.MODE_LABEL) == "strict":
                raise errors.ServerError(500, "InternalError", "failed calling webhook: connection refused")
            return body
        decision = decide(pod, self._namespace(namespace), self.config)
        if not isinstance(decision, Inject):
            return body
        identity = TRUST_DOMAIN.workload(namespace, pod.spec.service_account)
        patch = list(build_patch(pod, identity, decision, self.config))
        return json.dumps(jsonpatch.apply_patch(value, patch)).encode()

    def _namespace(self, name: str) -> Namespace:
        try:
            return msgspec.convert(self.get(f"/api/v1/namespaces/{name}"), Namespace)
        except KeyError:
            return Namespace(ObjectMeta(name=name))

    # What tests put into it

    def seed_pod(self, name: str, *, namespace: str = "shop", injected: bool = True, **fields: Any) -> dict[str, Any]:
        """A running pod, made when the webhook answered or (`injected` False) when it did not."""
        spec: dict[str, Any] = {"containers": [{"name": "app", "image": "app"}], "serviceAccountName": "web"}
        metadata: dict[str, Any] = {"name": name, "namespace": namespace} | fields.pop("metadata", {})
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec | fields.pop("spec", {})}
        if injected:
            pod = json.loads(self._admitted(namespace, json.dumps(pod).encode()))
        running = {"name": names.PROXY_CONTAINER, "state": {"running": {}}}
        pod["status"] = fields.pop(
            "status", {"phase": "Running", "initContainerStatuses": [running] if injected else []}
        )
        self.seed(pod)
        self.metrics.setdefault(name, proxy_metrics())
        return pod

    def edit(self, path: str, **values: Any) -> None:
        """Replaces top-level fields of an object."""
        self.seed({**self.get(path), **values})

    async def run(self, *, before: bool = False, only: str | None = None) -> dict[str, Outcome]:
        """Every check's outcome by its id."""
        view = View(self, now=NOW, control_plane="autotls", only=only)
        sections = BEFORE_INSTALLING if before else INSTALLED
        return {outcome.check.id: outcome async for outcome in run_checks(sections, view)}


class Authorities:
    """The CA behind the installation."""

    def __init__(self) -> None:
        self.root = a_root()
        self.issuer = an_issuer(self.root)

    @property
    def bundle(self) -> TrustBundle:
        return TrustBundle.of([self.root.certificate])

    def identity(self, namespace: str = "shop", account: str = "web", now: datetime = T0) -> dict[str, Any]:
        leaf = a_leaf(self.issuer, TRUST_DOMAIN.workload(namespace, account), now)
        return identity_secret(OWNER, namespace, account, secret_data(leaf, self.root))

    def webhook_secret(self, now: datetime = T0) -> dict[str, Any]:
        return self.serving_secret(names.WEBHOOK_TLS_SECRET, now)

    def serving_secret(self, name: str, now: datetime = T0) -> dict[str, Any]:
        leaf = a_leaf(self.issuer, CONSTRAINTS.serving_names(names.SERVING_SECRETS[name]), now)
        return tls_secret(OWNER, "autotls", name, secret_data(leaf, self.root))

    def authority_secret(self, name: str, authority: Authority) -> dict[str, Any]:
        data = {
            names.TLS_CERT_KEY: certificate_pem(authority.certificate),
            names.TLS_PRIVATE_KEY_KEY: private_key_pem(authority.key),
            names.TRUST_BUNDLE_KEY: self.bundle.pem,
        }
        return tls_secret(OWNER, "autotls", name, data)


def empty_cluster() -> Cluster:
    """One node, and the namespaces that every cluster has."""
    cluster = Cluster()
    for name in ("default", "kube-system", "kube-node-lease"):
        cluster.seed({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    info = {"nodeInfo": {"kubeletVersion": "v1.37.2", "operatingSystem": "linux"}}
    cluster.seed({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node1"}, "status": info})
    return cluster


def healthy_cluster() -> tuple[Cluster, Authorities]:
    """Installed from the shipped manifest, two pods of one ServiceAccount in the opted-in namespace `shop`."""
    cluster, authorities = empty_cluster(), Authorities()
    manifests = namespace_manifest("autotls") + render_shipped(Wanted("autotls"))
    for document in parse_stream(manifests, origin="install"):
        _seed_chart_object(cluster, document.value, authorities)
    cluster.config = parse_config(
        cluster.get(f"/api/v1/namespaces/autotls/configmaps/{names.CONFIG_MAP}")["data"][names.CONFIG_KEY].encode()
    )
    cluster.seed(
        authorities.authority_secret(names.ROOT_SECRET, authorities.root),
        authorities.authority_secret(names.ISSUER_SECRET, authorities.issuer),
        *map(authorities.serving_secret, names.SERVING_SECRETS),
        trust_bundle_config_map(OWNER, "shop", authorities.bundle),
        {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": names.CA_LEASE, "namespace": "autotls"},
            "spec": {"holderIdentity": "autotls-ca-1", "renewTime": NOW.strftime("%Y-%m-%dT%H:%M:%S.000000Z")},
        },
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": "shop", "labels": {names.INJECT_LABEL: "enabled"}},
        },
        authorities.identity(),
    )
    for name in ("web-1", "web-2"):
        cluster.seed_pod(name)
    return cluster, authorities


def _seed_chart_object(cluster: Cluster, value: dict[str, Any], authorities: Authorities) -> None:
    resource_of(value["apiVersion"], value["kind"])
    if value["kind"] == "Deployment":
        value["status"] = {"availableReplicas": 2, "updatedReplicas": 2}
    if value["kind"] == "MutatingWebhookConfiguration":
        for webhook in value["webhooks"]:
            webhook["clientConfig"]["caBundle"] = base64.b64encode(authorities.bundle.pem).decode()
        cluster.seed({**value, "metadata": {**value["metadata"], "name": names.STRICT_REGISTRATION}})
    cluster.seed(value)


def worst(outcomes: dict[str, Outcome]) -> dict[str, str]:
    """Everything that is not ok, by id."""
    return {key: each.result.verdict.value for key, each in outcomes.items() if each.result.verdict is not Verdict.OK}
