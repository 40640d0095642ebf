"""One entry of a tap as a line for a person, or as JSON. Pure.

Everything that came from the wire is made harmless: a path is whatever a client sent.
"""

import json
from collections.abc import Callable

import msgspec

from cli.output import BAD, DIM, GOOD, WARN, harmless
from discovery.entries import Entry, Place

# How a word is coloured: (text, colour) -> text.
Paint = Callable[[str, str], str]
_PATH: int = 120
_NAME: int = 253
_WORD: int = 80


def as_line(entry: Entry, paint: Paint) -> str:
    """`12:01:02.123 out shop/deployment/web -> … tls=true`, without a line break."""
    words = [
        paint(_clock(entry.time), DIM),
        {"outbound": "out", "inbound": "in "}.get(entry.direction, "?  "),
        f"{_end(entry.source)} -> {_end(entry.destination, service=True)}",
        harmless(entry.protocol, _WORD),
    ]
    if entry.protocol != "TCP":
        authority_and_path = harmless(entry.authority, _NAME) + harmless(entry.path or "-", _PATH)
        words += [harmless(entry.method or "-", _WORD), authority_and_path, _status(entry, paint)]
    elif entry.flags:
        words.append(paint(_flags(entry), BAD))
    words.append(f"{entry.latency_ms:.1f}ms")
    words.append(f"rx={entry.received_bytes} tx={entry.sent_bytes}")
    words.append(_tls(entry, paint))
    if entry.peer:
        words.append(f"peer={harmless(entry.peer, _NAME)}")
    return " ".join(words)


def as_json(entry: Entry) -> str:
    """The entry as one line of ASCII: an escape sequence stays an escape sequence."""
    return json.dumps(msgspec.to_builtins(entry), ensure_ascii=True)


def _clock(time: str) -> str:
    """`12:01:02.123` of an RFC 3339 time."""
    return harmless(time, 40).partition("T")[2].removesuffix("Z")[:12] or "-"


def _end(place: Place, *, service: bool = False) -> str:
    name = place.workload or place.pod or place.address or "-"
    via = f" ({harmless(place.service, _NAME)})" if service and place.service else ""
    if service and place.workload and not place.service:
        via = f" (:{place.address.rpartition(':')[2]})"
    return harmless(name, _NAME) + harmless(via, _NAME)


def _status(entry: Entry, paint: Paint) -> str:
    flags = f" {_flags(entry)}" if entry.flags else ""
    if not entry.status:
        return paint(f"-{flags}", BAD)
    grpc = "" if entry.grpc_status is None else f" grpc={entry.grpc_status}"
    colour = BAD if entry.status >= 500 else WARN if entry.status >= 400 or entry.grpc_status else ""
    shown = f"{entry.status}{grpc}{flags}"
    return paint(shown, colour) if colour else shown


def _flags(entry: Entry) -> str:
    return harmless(",".join(entry.flags), _WORD)


def _tls(entry: Entry, paint: Paint) -> str:
    if entry.tls:
        return paint("tls=true", GOOD)
    return paint(f"tls={harmless(entry.reason or '-', _WORD)}", WARN)
