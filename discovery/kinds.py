"""Projections of the kinds that discovery reads beside pods and namespaces.

Sources: k8s.io/api/core/v1 types.go (Service), k8s.io/api/discovery/v1 types.go (EndpointSlice).
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from mesh.pod import ObjectMeta, Wire

SERVICES: Final = "/api/v1/services"
ENDPOINT_SLICES: Final = "/apis/discovery.k8s.io/v1/endpointslices"
SERVICE_NAME_LABEL: Final = "kubernetes.io/service-name"
HEADLESS: Final = "None"


class ServicePort(Wire, frozen=True):
    port: int
    name: str | None = None
    protocol: str | None = None
    app_protocol: str | None = None
    target_port: int | str | None = None


class ServiceSpec(Wire, frozen=True):
    type: str | None = None
    cluster_ip: str | None = msgspec.field(name="clusterIP", default=None)
    cluster_ips: tuple[str, ...] | None = msgspec.field(name="clusterIPs", default=None)
    ports: tuple[ServicePort, ...] | None = None
    selector: Mapping[str, str] | None = None
    session_affinity: str | None = None
    internal_traffic_policy: str | None = None
    traffic_distribution: str | None = None

    @property
    def virtual_addresses(self) -> tuple[str, ...]:
        """The ClusterIPs, one per family; none for headless and ExternalName Services."""
        given = self.cluster_ips or ((self.cluster_ip,) if self.cluster_ip else ())
        return tuple(address for address in given if address and address != HEADLESS)


class Service(Wire, frozen=True):
    metadata: ObjectMeta
    spec: ServiceSpec = ServiceSpec()


class EndpointConditions(Wire, frozen=True):
    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class SliceEndpoint(Wire, frozen=True):
    addresses: tuple[str, ...] = ()
    conditions: EndpointConditions | None = None


class SlicePort(Wire, frozen=True):
    name: str | None = None
    port: int | None = None
    protocol: str | None = None
    app_protocol: str | None = None


class EndpointSlice(Wire, frozen=True):
    metadata: ObjectMeta
    address_type: str = "IPv4"
    endpoints: tuple[SliceEndpoint, ...] | None = None
    ports: tuple[SlicePort, ...] | None = None

    @property
    def service_key(self) -> str | None:
        """`namespace/name` of the Service it belongs to; None for a slice of nobody."""
        name = self.metadata.label(SERVICE_NAME_LABEL)
        return f"{self.metadata.namespace}/{name}" if name else None
