"""What the API server may answer, as types.

    AutotlsError
    ├── KubeconfigError            no usable kubeconfig, context or in-cluster token
    ├── UnknownKindError           an object of a kind that `kube.kinds` has no path for
    ├── NotLeaderError             a fenced request of a process that no longer leads
    └── ApiError                   any answer that is not 2xx
        ├── UnauthorizedError      401
        ├── ForbiddenError         403: RBAC, a quota, a policy, or a namespace that is going away
        ├── NotFoundError          404
        ├── AlreadyExistsError     409 with reason AlreadyExists
        ├── ConflictError          409: resourceVersion, uid or field ownership
        ├── GoneError              410: the resourceVersion or continue token is too old
        ├── InvalidError           400, 413, 415, 422: the object or the request itself is wrong
        ├── TooManyRequestsError   429; `retry_after_s` says when to come back
        ├── ServerError            5xx
        └── UnreachableError       no answer: refused, reset, timed out, TLS failure

Texts are cut, and anything that looks like key material is taken out of them: the API server quotes values of a
refused object in its messages.
"""

import re
from typing import Final

import msgspec

from mesh.errors import AutotlsError
from mesh.pod import Wire

MAX_TEXT: Final = 400
# The reason of an UnreachableError when the time was up.
TIMED_OUT: Final = "Timeout"

# PEM blocks, and runs of base64 that are longer than any name, hash or token id.
_MATERIAL: Final = re.compile(r"-----BEGIN.*?(?:-----END[^-]*-----|$)|[A-Za-z0-9+/=_-]{100,}", re.DOTALL)

# Answers to these quote names and field paths only. The others (400, 422, 500 on a bad patch) may quote values.
_QUOTES_NO_VALUES: Final = frozenset({401, 403, 404, 405, 409, 410, 429, 503, 504})


class KubeconfigError(AutotlsError):
    """There is no usable way to an API server: kubeconfig, context, exec plugin or in-cluster token."""


class UnknownKindError(AutotlsError):
    """An object of a kind that `kube.kinds` has no path for."""


class NotLeaderError(AutotlsError):
    """A request was refused here, before it was sent: this process no longer holds the Lease."""


class ApiError(AutotlsError):
    """An answer that is not 2xx; `status` is the HTTP status (0: no answer), `reason` the API's reason word.

    `causes` are the reason words of details.causes (`NamespaceTerminating`, `FieldManagerConflict`, ...).
    """

    def __init__(
        self,
        status: int,
        reason: str,
        message: str,
        *,
        causes: tuple[str, ...] = (),
        retry_after_s: float | None = None,
        hint: str = "",
    ) -> None:
        text = scrub(message)
        super().__init__(f"{status} {reason}: {text}" if status else f"{reason}: {text}", hint=hint)
        self.status = status
        self.reason = reason
        self.causes = causes
        self.retry_after_s = retry_after_s

    @property
    def transient(self) -> bool:
        """True when the same request may well succeed a little later."""
        return self.status in (0, 408, 429) or self.status >= 500

    @property
    def namespace_terminating(self) -> bool:
        """True when the write was refused because the namespace is going away (apiserver lifecycle admission)."""
        return "NamespaceTerminating" in self.causes


class UnauthorizedError(ApiError):
    """401: the API server does not know who we are."""


class ForbiddenError(ApiError):
    """403: RBAC, quota, admission policy, or a terminating namespace."""

    @property
    def quota_exceeded(self) -> bool:
        """True when a ResourceQuota is full; the API has no cause for it, only this wording (quota admission)."""
        return "exceeded quota" in self.message


class NotFoundError(ApiError):
    """404."""


class AlreadyExistsError(ApiError):
    """409 on create: an object of that name is there."""


class ConflictError(ApiError):
    """409: somebody else changed the object, or owns a field of it."""


class GoneError(ApiError):
    """410: that resourceVersion is compacted; list again."""


class InvalidError(ApiError):
    """400, 413, 415, 422: sending it again cannot help."""


class TooManyRequestsError(ApiError):
    """429 from priority and fairness, or from an eviction."""


class ServerError(ApiError):
    """5xx: the API server is there but cannot answer."""


class UnreachableError(ApiError):
    """No HTTP answer at all; `reason` names the fault."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(0, reason, message)


class _Cause(Wire, frozen=True):
    reason: str | None = None
    field: str | None = None


class _Details(Wire, frozen=True):
    causes: tuple[_Cause, ...] | None = None
    retry_after_seconds: int | None = None


class Status(Wire, frozen=True):
    """meta/v1 Status, the body of every error and of a watch's ERROR event."""

    code: int | None = None
    reason: str | None = None
    message: str | None = None
    details: _Details | None = None


_STATUS: Final = msgspec.json.Decoder(Status)

_BY_STATUS: Final[dict[int, type[ApiError]]] = {
    400: InvalidError,
    401: UnauthorizedError,
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
    410: GoneError,
    413: InvalidError,
    415: InvalidError,
    422: InvalidError,
    429: TooManyRequestsError,
}
_REASON_WORDS: Final = {401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 410: "Expired", 429: "TooManyRequests"}


def error_from_body(status: int, body: bytes, *, path: str = "", retry_after: str | None = None) -> ApiError:
    """The typed error for an HTTP answer; `path` decides how much of the server's words may be kept.

    A body that is not a Status (a proxy's page, the API server's plain 401) is replaced by the HTTP status.
    """
    try:
        answer = _STATUS.decode(body)
    except msgspec.MsgspecError:
        answer = Status()
    return error_from_status(status, answer, path=path, retry_after=retry_after)


def error_from_status(status: int, answer: Status, *, path: str = "", retry_after: str | None = None) -> ApiError:
    """The typed error for a Status object, as a watch delivers it."""
    reason = answer.reason or _REASON_WORDS.get(status, "HTTPError")
    causes = (answer.details.causes if answer.details else None) or ()
    message = answer.message or f"HTTP status {status}"
    if "/secrets" in path and status not in _QUOTES_NO_VALUES:
        fields = sorted({cause.field for cause in causes if cause.field})
        message = f"the API server refused the Secret (fields: {', '.join(fields) or 'not named'})"
    return _type_of(status, reason)(
        status,
        reason,
        message,
        causes=tuple(cause.reason for cause in causes if cause.reason),
        retry_after_s=_retry_after(answer, retry_after),
    )


def _type_of(status: int, reason: str) -> type[ApiError]:
    if reason == "AlreadyExists":
        return AlreadyExistsError
    if status >= 500:
        return ServerError
    return _BY_STATUS.get(status, ApiError)


def _retry_after(answer: Status, header: str | None) -> float | None:
    if header is not None and header.isdigit():
        return float(header)
    seconds = answer.details.retry_after_seconds if answer.details else None
    return float(seconds) if seconds else None


def scrub(text: str) -> str:
    """`text` in one line, without what looks like key material, at most MAX_TEXT characters."""
    clean = " ".join(_MATERIAL.sub("[hidden]", text).split())
    return clean if len(clean) <= MAX_TEXT else clean[: MAX_TEXT - 1] + "…"
