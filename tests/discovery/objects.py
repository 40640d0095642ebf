"""Objects of the API as discovery reads them, made in a line each."""

from __future__ import annotations

import msgspec

from discovery.kinds import (
    EndpointConditions,
    EndpointSlice,
    Service,
    ServicePort,
    ServiceSpec,
    SliceEndpoint,
    SlicePort,
)
from mesh import names
from mesh.config import MeshConfig
from mesh.pod import (
    Container,
    ContainerPort,
    ContainerState,
    ContainerStatus,
    Namespace,
    ObjectMeta,
    Pod,
    PodIP,
    PodSpec,
    PodStatus,
)

CONFIG = MeshConfig()


def identity(service_account: str, namespace: str = "shop") -> str:
    return f"spiffe://cluster.local/ns/{namespace}/sa/{service_account}"


def pod(
    name: str,
    *addresses: str,
    namespace: str = "shop",
    service_account: str = "default",
    meshed: bool = True,
    running: bool | None = None,
    ports: tuple[int | tuple[int, str], ...] = (8080,),
    labels: dict[str, str] | None = None,
    annotations: dict[str, str] | None = None,
    phase: str = "Running",
    host_network: bool = False,
    redirected: bool = True,
) -> Pod:
    """`meshed` sets the label; `running` (as `meshed` unless given) says whether the sidecar runs. `redirected`: so is
    what a meshed pod dials."""
    running = meshed if running is None else running
    state = ContainerState(running=msgspec.Raw(b"{}")) if running else ContainerState(waiting=msgspec.Raw(b"{}"))
    declared = tuple(
        ContainerPort(container_port=port[0], name=port[1])
        if isinstance(port, tuple)
        else ContainerPort(container_port=port)
        for port in ports
    )
    ours = (names.INIT_CONTAINER, names.PROXY_CONTAINER) if redirected else (names.PROXY_CONTAINER,)
    mesh = {names.MESH_LABEL: names.DEFAULT_CONTROL_PLANE_NAMESPACE} if meshed else {}
    return Pod(
        metadata=ObjectMeta(
            name=name,
            namespace=namespace,
            uid=f"uid-{name}",
            labels={**mesh, **(labels or {})},
            annotations=annotations,
        ),
        spec=PodSpec(
            containers=(Container(name="app", ports=declared),),
            init_containers=tuple(Container(name=each) for each in ours) if meshed else None,
            service_account_name=service_account,
            host_network=host_network or None,
        ),
        status=PodStatus(
            phase=phase,
            pod_ip=addresses[0] if addresses else "",
            pod_ips=tuple(PodIP(ip=address) for address in addresses),
            init_container_statuses=(ContainerStatus(name=names.PROXY_CONTAINER, state=state),),
        ),
    )


def service(
    name: str,
    *cluster_ips: str,
    namespace: str = "shop",
    ports: tuple[ServicePort, ...] = (ServicePort(port=80, target_port=8080),),
    annotations: dict[str, str] | None = None,
    **spec: str,
) -> Service:
    """Without ClusterIPs: headless."""
    ips = cluster_ips or ("None",)
    return Service(
        metadata=ObjectMeta(name=name, namespace=namespace, annotations=annotations),
        spec=ServiceSpec(cluster_ip=ips[0], cluster_ips=ips, ports=ports, **spec),
    )


def endpoint_slice(
    service_name: str,
    *endpoints: str | SliceEndpoint,
    namespace: str = "shop",
    suffix: str = "1",
    ports: tuple[SlicePort, ...] = (SlicePort(port=8080),),
) -> EndpointSlice:
    """Addresses are ready endpoints."""
    found = tuple(
        endpoint if isinstance(endpoint, SliceEndpoint) else SliceEndpoint(addresses=(endpoint,))
        for endpoint in endpoints
    )
    v6 = any(":" in address for endpoint in found for address in endpoint.addresses)
    return EndpointSlice(
        metadata=ObjectMeta(
            name=f"{service_name}-{suffix}", namespace=namespace, labels={"kubernetes.io/service-name": service_name}
        ),
        address_type="IPv6" if v6 else "IPv4",
        endpoints=found,
        ports=ports,
    )


def endpoint(
    address: str, *, ready: bool | None = None, serving: bool | None = None, terminating: bool | None = None
) -> SliceEndpoint:
    return SliceEndpoint(
        addresses=(address,), conditions=EndpointConditions(ready=ready, serving=serving, terminating=terminating)
    )


def namespace(name: str = "shop", *, labels: dict[str, str] | None = None, **annotations: str) -> Namespace:
    return Namespace(
        metadata=ObjectMeta(
            name=name,
            labels=labels,
            annotations={names.SETTING_PREFIX + key.replace("_", "-"): text for key, text in annotations.items()},
        )
    )
