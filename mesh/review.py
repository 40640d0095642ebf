"""AdmissionReview in, AdmissionReview out: the words that the API server and a webhook exchange.

Source: k8s.io/api/admission/v1 types.go. Bodies are bytes on both sides; of the pod only the projection of
`mesh.pod` is decoded, which is all that a decision and a patch by path need.
"""

import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from mesh.errors import AutotlsError
from mesh.pod import Pod, Wire

API_VERSION: Final = "admission.k8s.io/v1"
KIND: Final = "AdmissionReview"
# What types.go asks of warnings. The API server cuts beyond 256 characters, and beyond 4096 in all.
MAX_WARNING_LENGTH: Final = 120
MAX_WARNINGS: Final = 16
# A denial is read by a person, in full; the API server passes a Status message of any length on.
MAX_MESSAGE_LENGTH: Final = 1000
_PRINTABLE: Final = frozenset(string.printable) - frozenset("\t\n\r\x0b\x0c")


class ReviewError(AutotlsError):
    """Bytes are not an AdmissionReview that can be answered; the message names the place in them, never a value."""


@dataclass(frozen=True, slots=True)
class Review:
    """One admission request. `pod` is None when it is not about the creation of a pod (`subject` says what then).

    `namespace` is the request's: in a pod that a controller creates, `metadata.namespace` may be empty.
    """

    uid: str
    namespace: str
    pod: Pod | None
    dry_run: bool
    subject: str


class _Kind(Wire, frozen=True):
    group: str = ""
    version: str = ""
    kind: str = ""


class _Request(Wire, frozen=True):
    uid: str
    kind: _Kind = _Kind()
    sub_resource: str = ""
    operation: str = ""
    namespace: str = ""
    object: Pod | None = None
    dry_run: bool | None = None


class _Envelope(Wire, frozen=True):
    api_version: str
    kind: str
    request: _Request


class _OtherRequest(Wire, frozen=True):
    """Read only when a typed decode failed: whatever the object is, it may be none of our business."""

    uid: str
    kind: _Kind = _Kind()
    sub_resource: str = ""
    operation: str = ""
    namespace: str = ""
    dry_run: bool | None = None


class _OtherEnvelope(Wire, frozen=True):
    api_version: str
    kind: str
    request: _OtherRequest


class _Status(Wire, frozen=True):
    message: str
    reason: str
    code: int


class _Response(Wire, frozen=True):
    uid: str
    allowed: bool
    status: _Status | None = None
    # msgspec writes bytes as base64, which is what the API wants.
    patch: bytes | None = None
    patch_type: str | None = None
    audit_annotations: dict[str, str] | None = None
    warnings: tuple[str, ...] | None = None


class _ReviewResponse(Wire, frozen=True):
    response: _Response
    api_version: str
    kind: str


_ENVELOPE: Final = msgspec.json.Decoder(_Envelope)
_OTHER: Final = msgspec.json.Decoder(_OtherEnvelope)
_ENCODER: Final = msgspec.json.Encoder()
_POD: Final = _Kind("", "v1", "Pod")


def decode_review(body: bytes) -> Review:
    """The request in `body`. Raises ReviewError."""
    try:
        envelope = _ENVELOPE.decode(body)
    except RecursionError:
        raise ReviewError("the body is nested too deeply") from None
    except UnicodeDecodeError as error:
        # msgspec lets this one through as it is; its text would quote the bytes.
        raise ReviewError(f"the body is not UTF-8 ({error.reason})") from None
    except msgspec.DecodeError as error:
        return _not_about_a_pod(body, error)
    _check_envelope(envelope.api_version, envelope.kind, envelope.request.uid)
    request = envelope.request
    creates = request.kind == _POD and request.operation == "CREATE" and not request.sub_resource
    if creates and request.object is None:
        raise ReviewError("request.object is missing - at `$.request.object`")
    return _review(request, request.object if creates else None)


def _not_about_a_pod(body: bytes, error: msgspec.DecodeError) -> Review:
    """The request, if it is well formed but about another kind whose object cannot be read as a pod."""
    try:
        envelope = _OTHER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ReviewError(str(error)) from None
    _check_envelope(envelope.api_version, envelope.kind, envelope.request.uid)
    if envelope.request.kind == _POD and envelope.request.operation == "CREATE":
        raise ReviewError(str(error)) from None
    return _review(envelope.request, None)


def _check_envelope(api_version: str, kind: str, uid: str) -> None:
    if (api_version, kind) != (API_VERSION, KIND):
        raise ReviewError("the body is no AdmissionReview of admission.k8s.io/v1 - at `$.kind` and `$.apiVersion`")
    if not uid:
        raise ReviewError("request.uid is empty - at `$.request.uid`")


def _review(request: _Request | _OtherRequest, pod: Pod | None) -> Review:
    subject = "/".join(part for part in (request.operation, request.kind.kind, request.sub_resource) if part)
    namespace = request.namespace or (pod.metadata.namespace if pod else "")
    return Review(request.uid, namespace, pod, bool(request.dry_run), subject)


def encode_admitted(
    uid: str, reason: str, *, patch: bytes | None = None, identity: str = "", warnings: Sequence[str] = ()
) -> bytes:
    """An answer that admits the pod, with `patch` (an encoded JSON Patch) or as it is."""
    audit = {"reason": reason}
    if identity:
        audit["identity"] = identity
    return _encode(
        _Response(
            uid=uid,
            allowed=True,
            patch=patch,
            patch_type="JSONPatch" if patch is not None else None,
            audit_annotations=audit,
            warnings=warning_texts(warnings) if warnings else None,
        )
    )


def encode_denied(uid: str, reason: str, message: str) -> bytes:
    """An answer that refuses the pod and says why."""
    status = _Status(plain_text(message, MAX_MESSAGE_LENGTH), "Invalid", 422)
    return _encode(_Response(uid=uid, allowed=False, status=status, audit_annotations={"reason": reason}))


def _encode(response: _Response) -> bytes:
    return _ENCODER.encode(_ReviewResponse(response, API_VERSION, KIND))


def warning_texts(warnings: Sequence[str]) -> tuple[str, ...]:
    """`warnings` as the API server wants them: few, one short line of ASCII each, and they say who speaks."""
    shown = [plain_text(f"autotls: {warning}", MAX_WARNING_LENGTH) for warning in warnings[:MAX_WARNINGS]]
    if len(warnings) > MAX_WARNINGS:
        shown[-1] = f"autotls: and {len(warnings) - MAX_WARNINGS + 1} more"
    return tuple(shown)


def plain_text(text: str, limit: int) -> str:
    """`text` as one line of printable ASCII of at most `limit` characters; anything else becomes `?`."""
    if not (text.isascii() and text.isprintable()):
        text = "".join(character if character in _PRINTABLE else "?" for character in text)
    return text if len(text) <= limit else text[: limit - 3] + "..."
