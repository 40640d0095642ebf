"""Parsers for the values of settings. Each raises ValueError whose text completes "<value> is not ...".

The texts are short because an admission warning has 120 characters for annotation, value and what is allowed.
"""

import re
from collections.abc import Sequence
from typing import Final

from mesh.quantity import ZERO, Quantity, QuantityError

_MAX_PORT_ENTRIES: Final = 128
_PORTS: Final = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?\Z", re.ASCII)
_MAX_REACH_ENTRIES: Final = 256
REACH_ALL: Final = "*"
# RFC 1123 labels; a Service's name is one too (RFC 1035).
_LABEL: Final = r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?"
_REACH: Final = re.compile(rf"{_LABEL}(?:/{_LABEL})?\Z", re.ASCII)
_INTEGER: Final = re.compile(r"\d{1,6}\Z", re.ASCII)
# distribution/reference: lower-case path components joined by single separators, so `..` can never climb out of
# an allowed prefix; a registry may have a port.
_COMPONENT: Final = r"[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*"
_IMAGE: Final = re.compile(
    rf"(?:[A-Za-z0-9.-]+(?::\d{{1,5}})?/)?{_COMPONENT}(?:/{_COMPONENT})*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@sha256:[0-9a-f]{64})?\Z",
    re.ASCII,
)
_MAX_IMAGE_LENGTH: Final = 512


def one_of(text: str, allowed: Sequence[str]) -> str:
    """`text`, if it is one of `allowed`."""
    if text not in allowed:
        raise ValueError("one of " + ", ".join(allowed))
    return text


def integer_within(text: str, low: int, high: int) -> int:
    """`text` as an integer from `low` to `high`."""
    if not _INTEGER.match(text) or not low <= int(text) <= high:
        raise ValueError(f"an integer from {low} to {high}")
    return int(text)


def port_list(text: str) -> str:
    """Ports and ranges in canonical form, `80,443,8000-8100`; empty text is no port at all."""
    entries = [entry.strip() for entry in text.split(",")] if text.strip() else []
    if len(entries) > _MAX_PORT_ENTRIES:
        raise ValueError(f"a list of at most {_MAX_PORT_ENTRIES} ports")
    return ",".join(_port_range(entry) for entry in entries)


def _port_range(entry: str) -> str:
    match = _PORTS.match(entry)
    low, high = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= low <= high <= 65535:
        raise ValueError("ports like 80,443,8000-8100")
    return str(low) if low == high else f"{low}-{high}"


def reach_list(text: str) -> str:
    """Namespaces and `namespace/service` names in canonical form, `data/postgres,shop`; at least one, or `*`."""
    if text.strip() == REACH_ALL:
        return REACH_ALL
    entries = [entry.strip() for entry in text.split(",")]
    if len(entries) > _MAX_REACH_ENTRIES or not all(_REACH.match(entry) for entry in entries):
        raise ValueError("namespaces and namespace/service names, or *")
    return ",".join(entries)


def positive_quantity(text: str, _: object = None) -> str:
    """`text`, if it is a Kubernetes quantity above zero."""
    try:
        positive = Quantity.parse(text) > ZERO
    except QuantityError:
        positive = False
    if not positive:
        raise ValueError("a quantity above 0, like 100m or 64Mi")
    return text


def image_under(text: str, prefixes: Sequence[str]) -> str:
    """`text`, if it is an image reference at or below one of `prefixes` (whole path components)."""
    if len(text) <= _MAX_IMAGE_LENGTH and _IMAGE.match(text) and any(_is_under(text, prefix) for prefix in prefixes):
        return text
    raise ValueError(
        "an image under " + ", ".join(prefixes) if prefixes else "allowed: the chart names no image prefix"
    )


def _is_under(image: str, prefix: str) -> bool:
    # `registry/team` must not admit `registry/teammate/x`.
    if not image.startswith(prefix) or not prefix:
        return False
    return prefix[-1] in "/:@" or image == prefix or image[len(prefix)] in "/:@"
