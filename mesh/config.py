"""The installation's configuration: one file, the same for every process of the control plane.

The chart writes it into ConfigMap `autotls-config`; its defaults and the chart's are held together by a test.
"""

import re
from datetime import timedelta
from typing import Annotated, Final, Literal

import msgspec
import msgspec.yaml

from mesh import names
from mesh.errors import AutotlsError
from mesh.spiffe import SpiffeIdError, TrustDomain

Mode = Literal["optional", "strict"]
Inbound = Literal["direct", "observed"]
PodSecurityLevel = Literal["privileged", "baseline", "restricted"]
LogLevel = Literal["trace", "debug", "info", "warning", "error", "critical", "off"]

# Protocols in which the server speaks first, or that never carry HTTP: SMTP, submission, MySQL, Galera,
# PostgreSQL, Redis, Elasticsearch transport, memcached. The list is Linkerd's; users know it.
DEFAULT_OPAQUE_PORTS: Final = ("25", "587", "3306", "4444", "5432", "6379", "9300", "11211")

_DURATION = re.compile(r"(\d+)(ms|s|m|h|d)")
_UNITS = {
    "ms": timedelta(milliseconds=1),
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
}


class ConfigError(AutotlsError):
    """The configuration file is not what it should be; the message names the field."""


class _Section(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    pass


class ResourceValues(_Section, frozen=True):
    """Kubernetes quantities of the sidecar, as text. An empty limit: one core, the memory request (mesh.settings)."""

    cpu_request: str = "10m"
    cpu_limit: str = ""
    memory_request: str = "48Mi"
    memory_limit: str = "256Mi"


class ProxyConfig(_Section, frozen=True):
    """What the webhook puts into a pod unless an annotation says otherwise."""

    image: str = "autotls/proxy:0.1.0"
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    allowed_image_prefixes: tuple[str, ...] = ()
    resources: ResourceValues = ResourceValues()
    log_level: LogLevel = "warning"
    inbound: Inbound = "direct"
    skip_inbound_ports: tuple[str, ...] = ()
    skip_outbound_ports: tuple[str, ...] = ()
    opaque_ports: tuple[str, ...] = DEFAULT_OPAQUE_PORTS
    wait_seconds: Annotated[int, msgspec.Meta(ge=0, le=2)] = 2
    drain_seconds: Annotated[int, msgspec.Meta(ge=0, le=3600)] = 5


class IdentityConfig(_Section, frozen=True):
    """Lifetimes, as `24h`, `90s`, `365d`; all may be seconds, so that a test can watch a renewal."""

    leaf_lifetime: str = "24h"
    issuer_lifetime: str = "365d"
    root_lifetime: str = "3650d"
    # Backdating of notBefore: a node whose clock is behind must not refuse a fresh leaf.
    clock_skew: str = "10m"
    # The share of its life after which a certificate is renewed, and how much of its life the jitter may take off.
    renew_at: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 2 / 3
    renew_jitter: Annotated[float, msgspec.Meta(ge=0, lt=0.5)] = 0.05
    # True: `autotls-root` and `autotls-issuer` are filled by somebody else (cert-manager, say) and only read.
    external_issuer: bool = False


class LeaseConfig(_Section, frozen=True):
    """Leader election of the CA (client-go's names and proportions)."""

    duration: str = "15s"
    renew_deadline: str = "10s"
    retry_period: str = "2s"


class MeshConfig(_Section, frozen=True):
    """The whole file."""

    trust_domain: str = "cluster.local"
    cluster_domain: str = "cluster.local"
    control_plane_namespace: str = names.DEFAULT_CONTROL_PLANE_NAMESPACE
    mode: Mode = "optional"
    # What PodSecurity enforces in a namespace without a label of its own (the API server's admission
    # configuration cannot be read through the API).
    pod_security_default: PodSecurityLevel = "privileged"
    excluded_namespaces: tuple[str, ...] = ()
    # Where `stat` and `edges` find the proxies' series; empty: they ask the proxies themselves.
    prometheus_url: str = ""
    proxy: ProxyConfig = ProxyConfig()
    identity: IdentityConfig = IdentityConfig()
    lease: LeaseConfig = LeaseConfig()


def parse_config(text: bytes) -> MeshConfig:
    """The configuration in `text` (YAML).

    Raises ConfigError naming the field: unknown fields, wrong types, bad durations and trust domains.
    """
    try:
        config = msgspec.yaml.decode(text, type=MeshConfig)
    except msgspec.MsgspecError as error:
        raise ConfigError(f"configuration: {error}", hint="compare with charts/autotls/values.yaml") from error
    try:
        TrustDomain.parse(config.trust_domain)
    except SpiffeIdError as error:
        raise ConfigError(f"configuration: trustDomain: {error.message}", hint=error.hint) from error
    leaf, issuer, root = (
        parse_duration(getattr(config.identity, name), field=f"identity.{name}")
        for name in ("leaf_lifetime", "issuer_lifetime", "root_lifetime")
    )
    parse_duration(config.identity.clock_skew, field="identity.clock_skew")
    if not leaf < issuer < root:
        raise ConfigError(
            f"configuration: leaf ({leaf}), issuer ({issuer}) and root ({root}) lifetimes must grow in this order",
            hint="an issuer cannot outlive its root, nor a leaf its issuer",
        )
    lease, deadline, retry = (
        parse_duration(getattr(config.lease, name), field=f"lease.{name}")
        for name in ("duration", "renew_deadline", "retry_period")
    )
    if not retry < deadline < lease:
        raise ConfigError(
            "configuration: lease.retryPeriod, lease.renewDeadline and lease.duration must grow in this order",
            hint="otherwise two leaders could work at once; the defaults are 2s, 10s and 15s",
        )
    return config


def parse_duration(text: str, *, field: str = "duration") -> timedelta:
    """`1h30m`, `90s`, `365d` as a timedelta greater than zero (zero itself as `0s`).

    Raises ConfigError that names `field`.
    """
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ConfigError(f"{field}: {text!r} is not a duration", hint="write it as 24h, 90s, 1h30m or 365d")
    return sum((int(number) * _UNITS[unit] for number, unit in parts), timedelta())
