"""Whether a pod, or an entry, is what somebody asked to see."""

from collections.abc import Collection

from discovery import entries
from discovery.entries import Entry, Place, Selection, Target
from discovery.naming import host_of
from discovery.snapshot import PodFacts


def is_of(target: Target, pod: PodFacts, services: Collection[str]) -> bool:
    """True when `target` stands for `pod`; `services` are those that send to it."""
    match target.kind:
        case entries.NAMESPACE:
            return target.namespace in ("", pod.namespace)
        case entries.POD:
            return pod.key == f"{target.namespace}/{target.name}"
        case entries.SERVICE:
            return f"{target.namespace}/{target.name}" in services
        case kind:
            return pod.workload == f"{target.namespace}/{kind}/{target.name}"


def is_at(target: Target, place: Place) -> bool:
    """True when `target` stands for that end of an entry."""
    match target.kind:
        case entries.ADDRESS:
            return target.name in (host_of(place.address), place.address)
        case entries.NAMESPACE:
            known = (place.workload or place.pod or place.service).partition("/")[0]
            return target.namespace in ("", known)
        case entries.POD:
            return place.pod == f"{target.namespace}/{target.name}"
        case entries.SERVICE:
            return place.service.rpartition(":")[0] == f"{target.namespace}/{target.name}"
        case kind:
            return place.workload == f"{target.namespace}/{kind}/{target.name}"


def passes(selection: Selection, entry: Entry) -> bool:
    """True when an entry of a pod that was asked for is one that was asked for."""
    if selection.tls is not None and entry.tls is not selection.tls:
        return False
    if selection.method and entry.method.upper() != selection.method.upper():
        return False
    if selection.path and not entry.path.startswith(selection.path):
        return False
    wanted = selection.authority.lower()
    if wanted and entry.authority.lower() != wanted and not entry.authority.lower().startswith(f"{wanted}:"):
        return False
    return selection.to is None or is_at(selection.to, entry.destination)
