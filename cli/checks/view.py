"""What the checks read of a cluster: every list is read once, and shared by all checks of a run."""

import base64
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any, TypeVar, cast

import msgspec

from cli.installation import Registration, find_registration, read_config
from discovery.kinds import ServiceSpec
from kube.client import Api
from kube.errors import ForbiddenError, NotFoundError
from kube.kinds import CONFIG_MAPS, NAMESPACES, NODES, PODS, ConfigMap, HasMetadata, Node, Secret, collection_path
from kube.read import get, list_all
from mesh import names
from mesh.config import MeshConfig
from mesh.errors import AutotlsError
from mesh.kubelet import KubeletVersion, KubeletVersionError
from mesh.pod import Namespace, ObjectMeta, Pod, Wire
from mesh.svid import SvidError, TrustBundle

T = TypeVar("T")
K = TypeVar("K", bound=HasMetadata)


class MissingError(AutotlsError):
    """An object that an installation has is not there."""


class DeploymentStatus(Wire, frozen=True):
    updated_replicas: int = 0
    available_replicas: int = 0


class DeploymentSpec(Wire, frozen=True):
    replicas: int = 1


class Deployment(Wire, frozen=True):
    metadata: ObjectMeta
    spec: DeploymentSpec = DeploymentSpec()
    status: DeploymentStatus = DeploymentStatus()


class SeenServiceSpec(ServiceSpec, frozen=True):
    external_traffic_policy: str | None = None


class SeenService(Wire, frozen=True):
    """A Service with what conflicts are found by, beyond what discovery reads."""

    metadata: ObjectMeta
    spec: SeenServiceSpec = SeenServiceSpec()

    def selects(self, pod: Pod) -> bool:
        """Whether the pod is behind it; False for a Service whose endpoints are written by hand."""
        wanted, labels = self.spec.selector, pod.metadata.labels or {}
        return (
            bool(wanted)
            and self.metadata.namespace == pod.metadata.namespace
            and all(labels.get(key) == value for key, value in (wanted or {}).items())
        )


class View:
    """A cluster at `now`, through `api`. Reads raise ApiError; ForbiddenError is left to whoever runs the checks.

    `control_plane` is the namespace of the installation, `only` the one namespace whose pods are looked at.
    """

    def __init__(self, api: Api, *, now: datetime, control_plane: str, only: str | None = None) -> None:
        self.api = api
        self.now = now
        self.control_plane = control_plane
        self.only = only
        self._read: dict[str, Any] = {}

    async def once(self, what: str, read: Callable[[], Awaitable[T]]) -> T:
        """What `read` gave the first time it was asked for by the name `what`."""
        if what not in self._read:
            self._read[what] = await read()
        return cast(T, self._read[what])

    async def find(self, path: str, kind: type[K]) -> K | None:
        """The object at `path`, or None."""
        try:
            return await get(self.api, path, kind)
        except NotFoundError:
            return None

    async def namespaces(self) -> Mapping[str, Namespace]:
        async def read() -> Mapping[str, Namespace]:
            return {each.metadata.name: each for each in await list_all(self.api, NAMESPACES, Namespace)}

        return await self.once("namespaces", read)

    async def pods(self) -> tuple[Pod, ...]:
        """Pods that are neither finished nor going, of `only` where that is set."""

        async def read() -> tuple[Pod, ...]:
            path = f"/api/v1/namespaces/{self.only}/pods" if self.only else PODS
            found = await list_all(self.api, path, Pod)
            return tuple(pod for pod in found if not pod.finished and not pod.metadata.deletion_timestamp)

        return await self.once("pods", read)

    async def services(self) -> tuple[SeenService, ...]:
        """Services of the namespaces whose pods are looked at."""
        path = collection_path("v1", "services", self.only)
        return await self.once("services", lambda: list_all(self.api, path, SeenService))

    async def nodes(self) -> tuple[Node, ...]:
        return await self.once("nodes", lambda: list_all(self.api, NODES, Node))

    async def oldest_kubelet(self) -> KubeletVersion | None:
        """The oldest kubelet that counts for the webhook (webhook.sources); None where there is none."""
        versions: list[KubeletVersion] = []
        for node in await self.nodes():
            if node.status.node_info.operating_system == "windows":
                continue
            try:
                versions.append(KubeletVersion.parse(node.status.node_info.kubelet_version))
            except KubeletVersionError:
                continue
        return min(versions, default=None)

    async def registration(self, name: str = names.REGISTRATION) -> Registration | None:
        return await self.once(name, lambda: find_registration(self.api, name))

    async def config(self) -> MeshConfig:
        """The installed configuration. Raises MissingError, ConfigError."""

        async def read() -> MeshConfig:
            config = await read_config(self.api, self.control_plane)
            if config is None:
                raise MissingError(
                    f"ConfigMap {names.CONFIG_MAP} is not in namespace {self.control_plane}",
                    hint="autotls install | kubectl apply -f -",
                )
            return config

        return await self.once("config", read)

    async def bundle(self) -> TrustBundle:
        """The roots that are trusted now. Raises MissingError when the CA has made none yet."""
        return await self.once("bundle", self._bundle)

    async def _bundle(self) -> TrustBundle:
        pem = await self._root_secret_bundle() or await self._published_bundle() or await self._registered_bundle()
        if pem is None:
            hint = f"{self.kubectl} logs deployment/{names.CA}"
            raise MissingError("the CA has not published its root yet", hint=hint)
        try:
            return TrustBundle.parse(pem)
        except SvidError as error:
            raise MissingError(f"the trust bundle cannot be read: {error.message}", hint="see the CA's log") from error

    async def _root_secret_bundle(self) -> bytes | None:
        """What the CA itself starts from; only its certificates are looked at."""
        path = f"/api/v1/namespaces/{self.control_plane}/secrets/{names.ROOT_SECRET}"
        try:
            found = await self.find(path, Secret)
        except ForbiddenError:
            return None
        encoded = (found.data or {}).get(names.TRUST_BUNDLE_KEY) if found else None
        return base64.b64decode(encoded) if encoded else None

    async def _published_bundle(self) -> bytes | None:
        """The ConfigMap for everybody, of any namespace with an identity: it is the same in all."""
        ours = f"{names.MANAGED_BY_LABEL}={names.MANAGED_BY},{names.CONTROL_PLANE_LABEL}={self.control_plane}"
        try:
            found = await list_all(self.api, CONFIG_MAPS, ConfigMap, label_selector=ours)
        except ForbiddenError:
            return None
        texts = ((each.data or {}).get(names.TRUST_BUNDLE_KEY) for each in found)
        return next((text.encode() for text in texts if text), None)

    async def _registered_bundle(self) -> bytes | None:
        registration = await self.registration()
        for webhook in (registration.webhooks if registration else None) or ():
            if webhook.client_config.ca_bundle:
                return base64.b64decode(webhook.client_config.ca_bundle)
        return None

    async def deployment(self, name: str) -> Deployment | None:
        path = f"/apis/apps/v1/namespaces/{self.control_plane}/deployments/{name}"
        return await self.find(path, Deployment)

    async def post(self, path: str, body: Any, kind: type[T], *, dry_run: bool = False) -> T:
        """The answer to a POST that changes nothing: a review, or an object with `dry_run`."""
        query = (("dryRun", "All"), ("fieldManager", "autotls-check")) if dry_run else ()
        answer = await self.api.request("POST", path, query=query, body=msgspec.json.encode(body))
        return msgspec.json.decode(answer, type=kind)

    @property
    def kubectl(self) -> str:
        """kubectl for the control plane, as hints write it."""
        return f"kubectl -n {self.control_plane}"
