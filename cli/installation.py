"""What a cluster says about its autotls: where it is installed, its configuration, namespaces. The edge."""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from cli.target import Target, kubeconfig_files
from kube.client import Api, connect
from kube.errors import ApiError, ForbiddenError, NotFoundError
from mesh import names
from mesh.config import MeshConfig, parse_config
from mesh.errors import AutotlsError
from mesh.pod import Namespace, Wire

# A manifest can be injected without a cluster, so a cluster that does not answer must not be waited for.
ANSWER_TIMEOUT_S: Final = 2.0
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


@dataclass(frozen=True, slots=True)
class MeshState:
    """What `inject` needs to know: the configuration and the namespaces of the manifests, as far as they exist.

    `told` says in one sentence where it comes from; empty when the user did not ask.
    """

    config: MeshConfig
    namespaces: Mapping[str, Namespace]
    told: str


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
    if not kubeconfig_files(target):
        return MeshState(MeshConfig(), {}, "no kubeconfig: the default settings are used")
    try:
        return asyncio.run(_ask(target, tuple(namespaces)))
    except (AutotlsError, TimeoutError) as error:
        why = error.message if isinstance(error, AutotlsError) else f"no answer within {ANSWER_TIMEOUT_S:g} s"
        return MeshState(MeshConfig(), {}, f"the cluster cannot be asked ({why}): the default settings are used")


async def _ask(target: Target, wanted: tuple[str, ...]) -> MeshState:
    async with connect(kubeconfig=target.kubeconfig, context=target.context) as api:
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            namespaces = await read_namespaces(api, wanted)
            try:
                where = await find_control_plane(api)
                config = await read_config(api, where) if where else None
            except ApiError as error:
                told = f"the installation's settings cannot be read ({error.message}): the default settings are used"
                return MeshState(MeshConfig(), namespaces, told)
        if config is None:
            return MeshState(MeshConfig(), namespaces, "autotls is not installed here: the default settings are used")
        return MeshState(config, namespaces, f"the settings of the installation in namespace {where} are used")
