"""From a decoded review to the bytes of its answer: decision, patch, encoding. Pure; I/O is in webhook.app."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from msgspec.structs import replace

from mesh import names
from mesh.config import MeshConfig
from mesh.kubelet import KubeletVersion
from mesh.pod import Namespace, ObjectMeta, Pod
from mesh.review import Review, encode_admitted, encode_denied
from mesh.settings import mode_of
from mesh.spiffe import SpiffeId, TrustDomain
from webhook.decision import PSS_ENFORCE_LABEL, Deny, Inject, Skip, decide
from webhook.patch import build_encoded_patch

NOT_A_POD: Final = "not_a_pod_creation"
INVALID_SETTING: Final = "invalid_setting"
INTERNAL_FAULT: Final = "internal_fault"


@dataclass(frozen=True, slots=True)
class Outcome:
    """An encoded answer, and what the log and the metrics say about it."""

    body: bytes
    result: str
    reason: str
    message: str = ""
    warnings: tuple[str, ...] = ()


def answer(
    review: Review, pod: Pod, namespace: Namespace, config: MeshConfig, *, oldest_kubelet: KubeletVersion | None
) -> Outcome:
    """The answer for `pod`. Being called means that the API server's selectors matched, so it counts as opted in.

    Raises SpiffeIdError for a ServiceAccount whose name the API server would refuse as well; whatever is raised
    here the caller turns into `failed`.
    """
    decision = decide(pod, namespace, config, oldest_kubelet=oldest_kubelet, called=True)
    match decision:
        case Inject():
            identity = _identity(config.trust_domain, review.namespace, pod.spec.service_account)
            body = encode_admitted(
                review.uid,
                decision.reason,
                patch=build_encoded_patch(pod, identity, decision, config),
                identity=str(identity),
                warnings=decision.warnings,
            )
            return Outcome(body, "injected", decision.reason, warnings=decision.warnings)
        case Skip():
            body = encode_admitted(review.uid, decision.reason, warnings=(_skip_warning(decision),))
            return Outcome(body, "skipped", decision.reason, decision.message)
        case Deny():
            body = encode_denied(review.uid, INVALID_SETTING, decision.message)
            return Outcome(body, "denied", INVALID_SETTING, decision.message)


def ignored(review: Review) -> Outcome:
    """The answer to a review that is not about the creation of a pod: a registration that is not ours sent it."""
    return Outcome(encode_admitted(review.uid, NOT_A_POD), "ignored", NOT_A_POD, review.subject)


def failed(review: Review, *, strict: bool) -> Outcome:
    """The answer when something of ours broke. Optional: the pod starts as it is. Strict never falls back."""
    if strict:
        message = "autotls: an internal fault kept the sidecar out, and strict pods do not start without it"
        return Outcome(encode_denied(review.uid, INTERNAL_FAULT, message), "failed", INTERNAL_FAULT)
    warning = "not injected: internal fault of the webhook, see its log; restart the pod to try again"
    return Outcome(encode_admitted(review.uid, INTERNAL_FAULT, warnings=(warning,)), "failed", INTERNAL_FAULT)


def is_strict(pod: Pod, namespace: Namespace | None, config: MeshConfig) -> bool:
    """Whether the pod must not start without its sidecar."""
    return mode_of(pod.metadata, namespace.metadata if namespace else ObjectMeta(), config) == "strict"


def assumed_namespace(name: str) -> Namespace:
    """What is assumed of a namespace that could not be read.

    It may enforce PodSecurity: assuming that it does costs the pod its outbound redirect, assuming that it does
    not could keep the pod from being created at all.
    """
    return Namespace(metadata=ObjectMeta(name=name, labels={PSS_ENFORCE_LABEL: "restricted"}))


def strict_namespace(namespace: Namespace) -> Namespace:
    """`namespace` as the strict registration's selectors saw it: what we know of it may be older than they."""
    labels = {**(namespace.metadata.labels or {}), names.MODE_LABEL: "strict"}
    return replace(namespace, metadata=replace(namespace.metadata, labels=labels))


@lru_cache(maxsize=4096)
def _identity(trust_domain: str, namespace: str, service_account: str) -> SpiffeId:
    return TrustDomain(trust_domain).workload(namespace, service_account)


def _skip_warning(skip: Skip) -> str:
    return f"not injected ({skip.reason}): {skip.message}"
