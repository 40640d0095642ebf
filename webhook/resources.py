"""What a pod's resources mean: whether it is Guaranteed, what fits into it, what our containers ask for.

Sources: k8s.io/kubernetes pkg/apis/core/v1/helper/qos/qos.go (ComputePodQOS) and
k8s.io/component-helpers/resource/helpers.go (AggregateContainerRequests); KEP-2837 for pod-level resources.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from mesh.config import ResourceValues
from mesh.pod import Pod, PodSpec, Resources
from mesh.quantity import ZERO, Quantity, QuantityError
from mesh.settings import PodSettings

_COUNTED: Final = ("cpu", "memory")
# The CPU of our containers in a Guaranteed pod where nobody chose a limit. There the request must equal the limit,
# and a whole core for every sidecar would double what many pods cost.
GUARANTEED_CPU: Final = "100m"


@dataclass(frozen=True, slots=True)
class _Amounts:
    requests: Mapping[str, Quantity]
    limits: Mapping[str, Quantity]


_NOTHING: Final = _Amounts({}, {})


def is_guaranteed(pod: Pod) -> bool:
    """Whether the pod's QoS class is Guaranteed: limits of CPU and memory everywhere, each equal to its request.

    The API server compares sums; as it also refuses a request above its limit, equal sums and equal pairs are the
    same. Pod-level resources alone decide where there are any.
    """
    spec = pod.spec
    if spec.resources and (spec.resources.requests or spec.resources.limits):
        return _limits_are_requests(spec.resources)
    return all(_limits_are_requests(container.resources) for container in spec.all_containers)


def _limits_are_requests(resources: Resources | None) -> bool:
    if resources is None or not resources.limits:
        return False
    for name in _COUNTED:
        limit = resources.limits.get(name)
        # A missing request is defaulted from its limit.
        request = resources.requests.get(name, limit) if resources.requests else limit
        if limit is None or request is None or not _same_positive(request, limit):
            return False
    return True


def _same_positive(request: str | int | float, limit: str | int | float) -> bool:
    try:
        amount = Quantity.parse(limit)
        return amount.nano > 0 and (request == limit or Quantity.parse(request) == amount)
    except QuantityError:
        # Only a manifest can hold this; the API server will refuse it in its own words.
        return False


def sidecar_resources(settings: PodSettings, *, guaranteed: bool) -> ResourceValues:
    """Requests and limits of both our containers: equal for a Guaranteed pod, so that it stays Guaranteed."""
    values = settings.resources
    if not guaranteed:
        return values
    cpu = values.cpu_limit if settings.cpu_limit_chosen else _larger(values.cpu_request, GUARANTEED_CPU)
    # Memory goes up to the limit, not down to the request: a proxy that is killed for memory takes traffic with it.
    return ResourceValues(
        cpu_request=cpu, cpu_limit=cpu, memory_request=values.memory_limit, memory_limit=values.memory_limit
    )


def pod_level_shortage(spec: PodSpec, ours: ResourceValues, *, redirect: bool) -> str | None:
    """Why the pod with our containers would exceed its pod-level resources, in plain words; None if it fits.

    The API server refuses a pod whose containers' requests add up to more than the pod's, or of which one
    container's limit is above the pod's.
    """
    if not spec.resources:
        return None
    pod = _amounts(spec.resources, default_requests=False)
    added = _amounts(
        Resources(
            requests={"cpu": ours.cpu_request, "memory": ours.memory_request},
            limits={"cpu": ours.cpu_limit, "memory": ours.memory_limit},
        )
    )
    for name in _COUNTED:
        limit, own_limit = pod.limits.get(name), added.limits[name]
        if limit is not None and own_limit > limit:
            return f"the sidecar's {name} limit is above the pod's own"
        allowed = pod.requests.get(name, limit)
        if allowed is not None and _total_requests(spec, added.requests[name], name, redirect=redirect) > allowed:
            return f"its containers and the sidecar together request more {name} than the pod does"
    return None


def _total_requests(spec: PodSpec, ours: Quantity, name: str, *, redirect: bool) -> Quantity:
    """The highest request at any moment of the pod's life, our sidecar started first."""
    sidecars, peak = ours, (ours if redirect else ZERO)
    for container in spec.init_containers or ():
        request = _amounts(container.resources).requests.get(name, ZERO)
        if container.restart_policy == "Always":
            sidecars += request
            peak = max(peak, sidecars)
        else:
            peak = max(peak, sidecars + request)
    total = sidecars
    for container in spec.containers:
        total += _amounts(container.resources).requests.get(name, ZERO)
    return max(total, peak)


def _amounts(resources: Resources | None, *, default_requests: bool = True) -> _Amounts:
    """CPU and memory above zero. A missing request is its limit, as the API server defaults it (a manifest that
    `inject` reads has not been there yet)."""
    if resources is None:
        return _NOTHING
    limits = _parsed(resources.limits)
    requests = _parsed(resources.requests)
    return _Amounts({**limits, **requests} if default_requests else requests, limits)


def _parsed(amounts: Mapping[str, str | int | float] | None) -> dict[str, Quantity]:
    parsed: dict[str, Quantity] = {}
    for name in _COUNTED:
        value = amounts.get(name) if amounts else None
        if value is None:
            continue
        try:
            quantity = Quantity.parse(value)
        except QuantityError:
            # Only a manifest can hold this; the API server will refuse it in its own words.
            continue
        if quantity.nano > 0:
            parsed[name] = quantity
    return parsed


def _larger(one: str, other: str) -> str:
    return one if Quantity.parse(one) >= Quantity.parse(other) else other
