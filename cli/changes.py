"""What the webhook would do to a workload of a manifest, as a change of its pod template. Pure."""

import copy
from collections.abc import Callable, Mapping
from typing import Any, Final, cast

import jsonpatch
import msgspec

from cli.errors import ManifestError
from cli.injection import Change
from cli.workloads import Workload
from mesh import names
from mesh.config import MeshConfig, Mode
from mesh.pod import Namespace, ObjectMeta, Pod
from mesh.spiffe import TrustDomain
from webhook.decision import Decision, Deny, Inject, Skip, decide
from webhook.patch import build_patch

# Fields of a pod template that the projections read; the rest never has to decode.
_READ: Final = ("metadata", "spec")


def webhook_change(
    config: MeshConfig,
    namespaces: Mapping[str, Namespace],
    *,
    default_namespace: str,
    mode: Mode | None,
    origin: str,
) -> Callable[[Workload], Change]:
    """A change for `cli.injection.inject_text`: the webhook's decision and the webhook's patch.

    `namespaces` are those that could be read. `mode` is written as a label where the workload has none of its own.
    The returned function raises ManifestError for a pod that the webhook could not decode, or would refuse.
    """

    def change(workload: Workload) -> Change:
        namespace = namespace_of(workload, namespaces, default_namespace)
        target = copy.deepcopy(workload.pod)
        # A JSON Patch cannot add below null or nothing.
        metadata: dict[str, Any] = target.get("metadata") or {}
        target["metadata"] = metadata
        note = _set_mode(metadata, mode)
        pod = decode_pod(target, workload, origin=origin)
        decision: Decision = decide(pod, namespace, config, called=True)
        match decision:
            case Skip():
                return Change(None, f"{decision.reason}: {decision.message}")
            case Deny():
                raise ManifestError(origin, workload.line, decision.message)
            case Inject():
                identity = TrustDomain.parse(config.trust_domain).workload(
                    namespace.metadata.name, pod.spec.service_account
                )
                operations = list(build_patch(pod, identity, decision, config))
                patched = cast(dict[str, Any], jsonpatch.apply_patch(target, operations))  # pyright: ignore[reportUnknownMemberType]
                reason = "" if decision.redirect else decision.reason
                return Change(patched, reason, (*note, *decision.warnings))

    return change


def namespace_of(workload: Workload, namespaces: Mapping[str, Namespace], default: str) -> Namespace:
    """The workload's namespace with its labels, or just its name where nothing more is known."""
    name = workload.namespace or default
    return namespaces.get(name) or Namespace(metadata=ObjectMeta(name=name))


def decode_pod(template: Mapping[str, Any], workload: Workload, *, origin: str) -> Pod:
    """The projection of a pod template. Raises ManifestError that names the field that does not fit."""
    fields = {key: template[key] for key in _READ if template.get(key) is not None}
    try:
        return msgspec.convert(fields, Pod)
    except msgspec.ValidationError as error:
        raise ManifestError(
            origin, workload.line, f"{workload.kind} {workload.name}: {error}", hint="see `kubectl explain pod.spec`"
        ) from error


def _set_mode(metadata: dict[str, Any], mode: Mode | None) -> tuple[str, ...]:
    """Writes the mode label, first; returns a note when the workload has another of its own, which wins."""
    if mode is None:
        return ()
    labels: dict[str, Any] = metadata.get("labels") or {}
    own = labels.get(names.MODE_LABEL)
    if own is None:
        metadata["labels"] = {names.MODE_LABEL: mode, **labels}
    return () if own in (None, mode) else (f"its own label {names.MODE_LABEL}={own} is kept, --tls={mode} is not used",)
