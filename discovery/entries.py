"""What `autotls tap` asks for and what it is told: the lines between the command and discovery.

JSON, one object a line. Both sides accept fields that they do not know, so a newer command can talk to an older
control plane. Nothing here needs protobuf or a client: the command imports it.
"""

from typing import Final

import msgspec

MAX_TEXT: Final = 253
_MAX_RPS: Final = 10_000.0

# Kinds of a target that are no workload.
NAMESPACE: Final = "namespace"
POD: Final = "pod"
SERVICE: Final = "service"
ADDRESS: Final = "address"


class Target(msgspec.Struct, frozen=True, omit_defaults=True):
    """What somebody points at: `kind` is one of those above, or a workload's (mesh.workload) in lower case.

    A namespace has no `name`; without `namespace` it means all of them. An address has only a `name`.
    """

    kind: str
    namespace: str = ""
    name: str = ""

    def __str__(self) -> str:
        if self.kind == ADDRESS:
            return self.name
        if self.kind == NAMESPACE:
            return f"namespace {self.namespace}" if self.namespace else "all namespaces"
        return f"{self.kind} {self.namespace}/{self.name}"


class Selection(msgspec.Struct, frozen=True, omit_defaults=True):
    """Whose traffic (`of`), and which of it. Empty or None: any. `path` is how the path begins.

    `max_rps`: so many a second at most; 0 for no limit but that of discovery.
    """

    of: Target
    to: Target | None = None
    method: str = ""
    authority: str = ""
    path: str = ""
    tls: bool | None = None
    max_rps: float = 0.0


class Place(msgspec.Struct, frozen=True):
    """One end: `address` as `ip:port`, and what is known to be there, as `namespace/kind/name`, `namespace/name` and
    `namespace/service:port`."""

    address: str = ""
    workload: str = ""
    pod: str = ""
    service: str = ""


class Entry(msgspec.Struct, frozen=True):
    """One finished request or connection as the proxy of `reporter` saw it.

    `time` is when it began (RFC 3339, UTC). `tls`: it was on the wire as mutual TLS of `tls_version`, with `peer` on
    the other side; else `reason` says why not (mesh.reasons), or is empty where nothing was dialled at all. `status` is
    0 for a connection or where there was no answer, `grpc_status` (google.rpc.Code) None where it was no gRPC; `flags`
    are Envoy's response flags and `failure` its words.
    """

    time: str
    direction: str
    protocol: str
    reporter: str
    source: Place
    destination: Place
    latency_ms: float = 0.0
    received_bytes: int = 0
    sent_bytes: int = 0
    tls: bool = False
    tls_version: str = ""
    peer: str = ""
    reason: str = ""
    method: str = ""
    authority: str = ""
    path: str = ""
    status: int = 0
    grpc_status: int | None = None
    flags: tuple[str, ...] = ()
    failure: str = ""


class Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of a tap: an entry, or how things are.

    `proxies` that are tapped through this replica; `skipped` entries since the last line because of `max_rps`, and
    `lost` ones because they came faster than they could be read or taken away.
    """

    entry: Entry | None = None
    proxies: int | None = None
    skipped: int = 0
    lost: int = 0
    error: str = ""
    hint: str = ""


def faults(selection: Selection) -> str:
    """What is wrong with a selection, or nothing."""
    for target in (selection.of, selection.to):
        if target is None:
            continue
        if max(len(target.kind), len(target.namespace), len(target.name)) > MAX_TEXT:
            return "a name is too long"
        if target.kind not in (NAMESPACE, ADDRESS) and not (target.namespace and target.name):
            return f"a {target.kind} needs a namespace and a name"
    if selection.of.kind == ADDRESS:
        return "an address cannot be tapped, only pods and what stands for them"
    if max(map(len, (selection.method, selection.authority, selection.path))) > 4 * MAX_TEXT:
        return "a filter is too long"
    if not 0 <= selection.max_rps <= _MAX_RPS:
        return f"max_rps must be between 0 and {_MAX_RPS:g}"
    return ""
