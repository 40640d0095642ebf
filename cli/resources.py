"""Resources as operators type them: `deploy`, `deploy/web`, `deploy web api`. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from cli.errors import CliError
from telemetry.rows import Kind, Peer

# kubectl's names, singular, plural and short.
_WORDS: Final = {
    Kind.DEPLOYMENT: ("deployment", "deployments", "deploy"),
    Kind.STATEFULSET: ("statefulset", "statefulsets", "sts"),
    Kind.DAEMONSET: ("daemonset", "daemonsets", "ds"),
    Kind.REPLICASET: ("replicaset", "replicasets", "rs"),
    Kind.JOB: ("job", "jobs"),
    Kind.CRONJOB: ("cronjob", "cronjobs", "cj"),
    Kind.POD: ("pod", "pods", "po"),
    Kind.NAMESPACE: ("namespace", "namespaces", "ns"),
    Kind.SERVICE: ("service", "services", "svc"),
    Kind.AUTHORITY: ("authority", "authorities", "au"),
}
_KINDS: Final = {word: kind for kind, words in _WORDS.items() for word in words}
KINDS_HELP: Final = ", ".join(f"{words[1]}" + (f" ({words[2]})" if len(words) > 2 else "") for words in _WORDS.values())


@dataclass(frozen=True, slots=True)
class Resources:
    """All objects of a kind, or those of these names."""

    kind: Kind
    names: tuple[str, ...] = ()


def parse_kind(word: str) -> Kind:
    """Raises CliError for what is no kind."""
    kind = _KINDS.get(word.lower())
    if kind is None:
        raise CliError(f"{word!r} is no kind of resource that has traffic", hint=f"choose from {KINDS_HELP}")
    return kind


def parse_resources(words: Sequence[str]) -> Resources:
    """From `deploy`, `deploy/web` or `deploy web api`; deployments when there are no words. Raises CliError."""
    if not words:
        return Resources(Kind.DEPLOYMENT)
    first, slash, name = words[0].partition("/")
    kind = parse_kind(first)
    if not slash:
        return Resources(kind, tuple(words[1:]))
    if not name or len(words) > 1:
        raise CliError(f"{' '.join(words)!r} names no resource", hint="write deploy/web, or deploy web api")
    return Resources(kind, (name,))


def parse_peer(text: str, namespace: str) -> Peer:
    """From `deploy/web` or an address, for `--to` and `--from`; a namespace names itself. Raises CliError."""
    try:
        return Peer(None, "", str(ip_address(text)))
    except ValueError:
        pass  # no address
    first, slash, name = text.partition("/")
    kind = parse_kind(first)
    if not slash or not name or kind is Kind.AUTHORITY:
        raise CliError(f"{text!r} names no peer", hint="write deploy/web, svc/web, ns/shop or 192.0.2.1")
    return Peer(kind, "" if kind is Kind.NAMESPACE else namespace, name)
