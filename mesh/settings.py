"""What one pod asked for: the chart's values, then its namespace's annotations, then its own.

The mode is a label (`autotls.io/tls`), every other setting an annotation `config.autotls.io/<setting>`. A bad
value never stops the reading: it is reported and the next best value is used, so that the caller decides whether
to warn (optional) or to refuse (strict).
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final, cast, get_args

from mesh import names
from mesh.config import ConfigError, Inbound, LogLevel, MeshConfig, Mode, ResourceValues
from mesh.errors import AutotlsError
from mesh.pod import ObjectMeta
from mesh.quantity import Quantity
from mesh.values import image_under, integer_within, one_of, port_list, positive_quantity, reach_list

_MODES: Final = frozenset(get_args(Mode))
# Envoy runs one worker thread: one core is the most it can use, so this limit never throttles it. It is set all
# the same, because a ResourceQuota on limits.cpu refuses a pod with any container that has none.
DEFAULT_CPU_LIMIT: Final = "1"
# So that every warning of ours fits into the 120 characters that one may have, with what is allowed.
_SHOWN_VALUE_LENGTH: Final = 16


class SettingError(AutotlsError):
    """One label or annotation has a value that is not allowed; `setting`, `value` and `allowed` say which."""

    def __init__(self, setting: str, value: str, allowed: str) -> None:
        shown = value if len(value) <= _SHOWN_VALUE_LENGTH else value[: _SHOWN_VALUE_LENGTH - 3] + "..."
        super().__init__(f'{setting}: "{shown}" is not {allowed}')
        self.setting = setting
        self.value = value
        self.allowed = allowed


@dataclass(frozen=True, slots=True)
class PodSettings:
    """Everything the sidecar of one pod is built from. Ports are canonical text: `80,443,8000-8100`.

    Every quantity in `resources` is set and valid, and no limit is below its request.
    """

    mode: Mode
    inbound: Inbound
    image: str
    image_pull_policy: str
    resources: ResourceValues
    log_level: LogLevel
    skip_inbound_ports: str
    skip_outbound_ports: str
    opaque_ports: str
    wait_seconds: int
    drain_seconds: int
    # False where nobody chose a CPU limit: a Guaranteed pod then gets a smaller one (webhook.resources).
    cpu_limit_chosen: bool = False
    # Namespaces and namespace/service names that the pod dials, as `data/postgres,shop`; empty: everything meshed.
    reach: str = ""


@dataclass(frozen=True, slots=True)
class _Setting:
    """How one annotation is read: `parse` raises ValueError whose text says what is allowed."""

    field: str
    parse: Callable[[str, MeshConfig], object]


_RESOURCE_SETTINGS: Final = {
    "proxy-cpu-request": "cpu_request",
    "proxy-cpu-limit": "cpu_limit",
    "proxy-memory-request": "memory_request",
    "proxy-memory-limit": "memory_limit",
}
_SETTINGS: Final[Mapping[str, _Setting]] = {
    **{name: _Setting(field, positive_quantity) for name, field in _RESOURCE_SETTINGS.items()},
    "proxy-image": _Setting("image", lambda text, config: image_under(text, config.proxy.allowed_image_prefixes)),
    "log-level": _Setting("log_level", lambda text, _: one_of(text, get_args(LogLevel))),
    "inbound": _Setting("inbound", lambda text, _: one_of(text, get_args(Inbound))),
    "skip-inbound-ports": _Setting("skip_inbound_ports", lambda text, _: port_list(text)),
    "skip-outbound-ports": _Setting("skip_outbound_ports", lambda text, _: port_list(text)),
    "opaque-ports": _Setting("opaque_ports", lambda text, _: port_list(text)),
    "reach": _Setting("reach", lambda text, _: reach_list(text)),
    "wait-seconds": _Setting("wait_seconds", lambda text, _: integer_within(text, 0, 2)),
    "drain-seconds": _Setting("drain_seconds", lambda text, _: integer_within(text, 0, 3600)),
}
SETTINGS: Final = tuple(_SETTINGS)


def settings_for(
    pod: ObjectMeta, namespace: ObjectMeta, config: MeshConfig
) -> tuple[PodSettings, tuple[SettingError, ...]]:
    """The settings of one pod, and what was wrong with the values it or its namespace gave.

    Raises ConfigError if the chart's own values are invalid; `default_settings` at start finds that out.
    """
    mode, mode_errors = _mode(pod, namespace, config)
    settings = default_settings(config, mode)
    if not _has_settings(pod.annotations) and not _has_settings(namespace.annotations):
        return settings, mode_errors
    values, errors = _overrides(pod.annotations or {}, namespace.annotations or {}, config)
    settings, resource_errors = _with_overrides(settings, values)
    return settings, (*mode_errors, *errors, *resource_errors)


@lru_cache(maxsize=16)
def default_settings(config: MeshConfig, mode: Mode) -> PodSettings:
    """The chart's values as settings. Raises ConfigError that names the value under `proxy`."""
    proxy = config.proxy
    cpu_limit = proxy.resources.cpu_limit
    # Without a limit of the chart's, a request above the default limit would make the pod invalid.
    resources = ResourceValues(
        cpu_request=_checked("resources.cpuRequest", proxy.resources.cpu_request, positive_quantity, config),
        cpu_limit=_checked("resources.cpuLimit", cpu_limit or DEFAULT_CPU_LIMIT, positive_quantity, config),
        memory_request=_checked("resources.memoryRequest", proxy.resources.memory_request, positive_quantity, config),
        memory_limit=_checked(
            "resources.memoryLimit",
            proxy.resources.memory_limit or proxy.resources.memory_request,
            positive_quantity,
            config,
        ),
    )
    return PodSettings(
        mode=mode,
        inbound=proxy.inbound,
        image=proxy.image,
        image_pull_policy=proxy.image_pull_policy,
        resources=_raised_limits(resources),
        log_level=proxy.log_level,
        skip_inbound_ports=_checked("skipInboundPorts", ",".join(proxy.skip_inbound_ports), _ports, config),
        skip_outbound_ports=_checked("skipOutboundPorts", ",".join(proxy.skip_outbound_ports), _ports, config),
        opaque_ports=_checked("opaquePorts", ",".join(proxy.opaque_ports), _ports, config),
        wait_seconds=proxy.wait_seconds,
        drain_seconds=proxy.drain_seconds,
        cpu_limit_chosen=bool(cpu_limit),
    )


def _ports(text: str, _: MeshConfig) -> str:
    return port_list(text)


def _checked(name: str, text: str, parse: Callable[[str, MeshConfig], str], config: MeshConfig) -> str:
    try:
        return parse(text, config)
    except ValueError as error:
        raise ConfigError(f"configuration: proxy.{name}: {text!r} is not {error}") from error


def mode_of(pod: ObjectMeta, namespace: ObjectMeta, config: MeshConfig) -> Mode:
    """The mode of one pod: its label, else its namespace's, else the chart's; a label that means nothing is absent."""
    return _mode(pod, namespace, config)[0]


def _mode(pod: ObjectMeta, namespace: ObjectMeta, config: MeshConfig) -> tuple[Mode, tuple[SettingError, ...]]:
    errors: list[SettingError] = []
    for meta in (pod, namespace):
        value = meta.label(names.MODE_LABEL)
        if value in _MODES:
            return cast(Mode, value), tuple(errors)
        if value is not None:
            errors.append(SettingError(names.MODE_LABEL, value, "optional or strict"))
    return config.mode, tuple(errors)


def _has_settings(annotations: Mapping[str, str] | None) -> bool:
    return bool(annotations) and any(key.startswith(names.SETTING_PREFIX) for key in annotations)


def _overrides(
    pod: Mapping[str, str], namespace: Mapping[str, str], config: MeshConfig
) -> tuple[dict[str, object], list[SettingError]]:
    """Field → value, the pod's before its namespace's; a bad value of the pod leaves the namespace's in force."""
    values: dict[str, object] = {}
    errors: list[SettingError] = []
    for annotations in (namespace, pod):
        for name, text in _settings_in(annotations):
            setting = _SETTINGS.get(name)
            if setting is None:
                errors.append(SettingError(names.SETTING_PREFIX + name, text, "read: there is no such setting"))
                continue
            try:
                values[setting.field] = setting.parse(text, config)
            except ValueError as error:
                errors.append(SettingError(names.SETTING_PREFIX + name, text, str(error)))
    return values, errors


def _settings_in(annotations: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for key, text in annotations.items():
        if key.startswith(names.SETTING_PREFIX):
            yield key.removeprefix(names.SETTING_PREFIX), text.strip()


def _with_overrides(settings: PodSettings, values: dict[str, Any]) -> tuple[PodSettings, tuple[SettingError, ...]]:
    chosen = {field: values.pop(field) for field in _RESOURCE_SETTINGS.values() if field in values}
    errors: list[SettingError] = []
    for resource in ("cpu", "memory"):
        request, limit = f"{resource}_request", f"{resource}_limit"
        if limit in chosen and Quantity.parse(chosen[limit]) < Quantity.parse(
            floor := chosen.get(request, getattr(settings.resources, request))
        ):
            annotation = f"{names.SETTING_PREFIX}proxy-{resource}-limit"
            errors.append(SettingError(annotation, chosen.pop(limit), f"at least the request, {floor}"))
    current = settings.resources
    resources = ResourceValues(
        **{field: chosen.get(field, getattr(current, field)) for field in _RESOURCE_SETTINGS.values()}
    )
    return (
        replace(
            settings,
            resources=_raised_limits(resources),
            cpu_limit_chosen=settings.cpu_limit_chosen or "cpu_limit" in chosen,
            **values,
        ),
        tuple(errors),
    )


def _raised_limits(resources: ResourceValues) -> ResourceValues:
    """No limit below its request: the API server would refuse the pod."""

    def at_least(limit: str, request: str) -> str:
        return limit if Quantity.parse(limit) >= Quantity.parse(request) else request

    return ResourceValues(
        cpu_request=resources.cpu_request,
        cpu_limit=at_least(resources.cpu_limit, resources.cpu_request),
        memory_request=resources.memory_request,
        memory_limit=at_least(resources.memory_limit, resources.memory_request),
    )
