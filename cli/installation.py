"""What a cluster says about its autotls: where it is installed, its configuration, namespaces. The edge."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from cli.mesh_state import MeshState, by_default
from cli.target import Target
from kube.client import Api, connect
from kube.errors import ApiError, ForbiddenError, NotFoundError
from kube.kinds import Bare
from mesh import names
from mesh.config import MeshConfig, parse_config
from mesh.errors import AutotlsError
from mesh.pod import Namespace, Wire

# A manifest can be injected without a cluster, so a cluster that does not answer must not be waited for.
ANSWER_TIMEOUT_S: Final = 2.0
_VERSION_LABEL: Final = "app.kubernetes.io/version"
_REGISTRATIONS: Final = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"


class _ServiceReference(Wire, frozen=True):
    namespace: str = ""
    name: str = ""


class ClientConfig(Wire, frozen=True):
    service: _ServiceReference | None = None
    ca_bundle: str | None = None


class RegisteredWebhook(Wire, frozen=True):
    name: str = ""
    client_config: ClientConfig = ClientConfig()
    failure_policy: str | None = None


class Registration(Wire, frozen=True):
    """A MutatingWebhookConfiguration."""

    webhooks: tuple[RegisteredWebhook, ...] | None = None

    @property
    def control_plane_namespace(self) -> str | None:
        """The namespace of the Service that it calls; None if it is not ours or calls none."""
        for webhook in self.webhooks or ():
            service = webhook.client_config.service
            if service and service.name == names.WEBHOOK:
                return service.namespace
        return None


class _ConfigMap(Wire, frozen=True):
    data: Mapping[str, str] | None = None


async def find_registration(api: Api, name: str = names.REGISTRATION) -> Registration | None:
    """The registration, or None if there is none. Raises ApiError."""
    try:
        return msgspec.json.decode(await api.request("GET", f"{_REGISTRATIONS}/{name}"), type=Registration)
    except NotFoundError:
        return None


async def find_control_plane(api: Api) -> str | None:
    """The namespace of the control plane, found by its registration; the default where that cannot be read."""
    try:
        registration = await find_registration(api)
    except ForbiddenError:
        return names.DEFAULT_CONTROL_PLANE_NAMESPACE
    return registration.control_plane_namespace if registration else None


async def read_config(api: Api, namespace: str) -> MeshConfig | None:
    """The installed configuration, or None if there is none. Raises ApiError, ConfigError."""
    try:
        body = await api.request("GET", f"/api/v1/namespaces/{namespace}/configmaps/{names.CONFIG_MAP}")
    except NotFoundError:
        return None
    text = (msgspec.json.decode(body, type=_ConfigMap).data or {}).get(names.CONFIG_KEY)
    return parse_config(text.encode()) if text is not None else None


async def read_namespaces(api: Api, wanted: Iterable[str]) -> dict[str, Namespace]:
    """Those of `wanted` that exist and may be read."""
    found: dict[str, Namespace] = {}
    for name in sorted(set(wanted)):
        try:
            body = await api.request("GET", f"/api/v1/namespaces/{name}")
        except (NotFoundError, ForbiddenError):
            continue
        found[name] = msgspec.json.decode(body, type=Namespace)
    return found


def ask_cluster(target: Target, namespaces: Iterable[str]) -> MeshState:
    """What the cluster of the current context says within ANSWER_TIMEOUT_S; the defaults where it says nothing."""
    try:
        return asyncio.run(_ask(target, tuple(namespaces)))
    except (AutotlsError, TimeoutError) as error:
        why = error.message if isinstance(error, AutotlsError) else f"no answer within {ANSWER_TIMEOUT_S:g} s"
        return by_default(f"the cluster cannot be asked ({why})")


async def _ask(target: Target, wanted: tuple[str, ...]) -> MeshState:
    async with connect(kubeconfig=target.kubeconfig, context=target.context) as api:
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            namespaces = await read_namespaces(api, wanted)
            try:
                where = await find_control_plane(api)
                config = await read_config(api, where) if where else None
            except ApiError as error:
                return by_default(f"the installation's settings cannot be read ({error.message})", namespaces)
        if config is None:
            return by_default("autotls is not installed here", namespaces)
        return MeshState(config, namespaces, f"the settings of the installation in namespace {where} are used")


def ask_version(target: Target) -> dict[str, str]:
    """`version` and `namespace` of the control plane; or `error`, why they are not known."""
    try:
        return asyncio.run(_ask_version(target))
    except TimeoutError:
        return {"error": f"no answer within {ANSWER_TIMEOUT_S:g} s"}
    except AutotlsError as error:
        return {"error": error.message}


async def _ask_version(target: Target) -> dict[str, str]:
    async with connect(kubeconfig=target.kubeconfig, context=target.context) as api, asyncio.timeout(ANSWER_TIMEOUT_S):
        where = await find_control_plane(api)
        if where is None:
            return {"error": "autotls is not installed"}
        path = f"/apis/apps/v1/namespaces/{where}/deployments/{names.WEBHOOK}"
        deployment = msgspec.json.decode(await api.request("GET", path), type=Bare)
        return {"version": deployment.metadata.label(_VERSION_LABEL) or "not labelled", "namespace": where}
