"""The FastAPI application around `webhook.admission`: bytes in, bytes out, within the API server's deadline.

The hot path is a plain ASGI endpoint: no request or response object, no model, no thread. What can go wrong ends
as an answer: a clean 4xx for what is no review, an unpatched admission (optional) or a denial (strict) for a fault
of ours, never a 500 and never half a patch.
"""

import asyncio
import re
import time
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from typing import Final
from urllib.parse import parse_qs

import msgspec
import structlog
from fastapi import FastAPI
from starlette.types import Message, Receive, Scope, Send

from mesh.config import MeshConfig
from mesh.pod import Namespace, Pod
from mesh.review import Review, ReviewError, decode_review
from webhook import admission
from webhook.admission import Outcome
from webhook.metrics import FAULTS, REFUSED_REQUESTS, SECONDS, admissions
from webhook.sources import Cluster

MUTATE_PATH: Final = "/mutate"
# For the registration with `failurePolicy: Fail`: its selectors found the pod strict, so it is, even where the
# namespace cannot be read or our mirror of it is older than its label.
STRICT_PATH: Final = "/mutate/strict"
# etcd takes objects of 1.5 MiB and the API server requests of 3 MiB; a review holds the object at most twice.
MAX_BODY_BYTES: Final = 8 * 1024 * 1024
_TOO_LONG: Final = f"a review has at most {MAX_BODY_BYTES} bytes"
# The API server's own default where a registration names no timeout, and the longest it accepts is 30 s.
DEFAULT_DEADLINE_S: Final = 10.0
NAMESPACE_READ_S: Final = 0.5
# What is left for the way back: an answer that arrives with the deadline is an answer lost.
_MARGIN_S: Final = 0.1

_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(h|ms|m|s|us|µs|ns)")
_SECONDS_PER: Final = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}

_log: Final = structlog.get_logger("webhook")


class RequestError(Exception):
    """The request is no review that can be read; `status` is the HTTP answer, the text says why."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Admission:
    """The endpoint, an ASGI application of its own. Holds nothing that changes from request to request."""

    def __init__(
        self, config: MeshConfig, cluster: Cluster, *, strict: bool = False, draining: Callable[[], bool] = bool
    ) -> None:
        self._config = config
        self._cluster = cluster
        self._strict = strict
        self._draining = draining

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        status, body = await self._handle(scope, receive)
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        # 413: the rest of the body is on its way, and closing is the only way not to read it. Draining: the API
        # server would go on using this connection, endpoints or not, and lose the review that meets its end.
        if status == 413 or self._draining():
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})
        SECONDS.observe(time.perf_counter() - started)

    async def _handle(self, scope: Scope, receive: Receive) -> tuple[int, bytes]:
        deadline_s = deadline_of(scope.get("query_string", b""))
        try:
            review = decode_review(await read_body(scope, receive, deadline_s))
        except ReviewError as error:
            return _refused(400, str(error))
        except RequestError as error:
            return _refused(error.status, str(error))
        except TimeoutError:
            return _refused(408, "the body did not arrive within the deadline")
        return 200, (await self._answer(review, deadline_s)).body

    async def _answer(self, review: Review, deadline_s: float) -> Outcome:
        pod, namespace = review.pod, None
        try:
            if pod is None:
                outcome = admission.ignored(review)
            else:
                namespace = self._cluster.namespace(review.namespace) or await self._unknown(review, deadline_s)
                if self._strict:
                    namespace = admission.strict_namespace(namespace)
                outcome = admission.answer(
                    review, pod, namespace, self._config, oldest_kubelet=self._cluster.oldest_kubelet
                )
        except Exception as error:
            FAULTS.labels(type(error).__name__).inc()
            strict = self._strict or (pod is not None and admission.is_strict(pod, namespace, self._config))
            outcome = admission.failed(review, strict=strict)
            with suppress(OSError, ValueError):
                _log.error("review_failed", uid=review.uid, ns=review.namespace, strict=strict, **_fault(error))
        admissions(outcome.result, outcome.reason).inc()
        if pod is not None:
            # A log that cannot be written (a full or closed pipe) must not cost the pod its answer.
            with suppress(OSError, ValueError):
                _log_outcome(review, pod, outcome)
        return outcome

    async def _unknown(self, review: Review, deadline_s: float) -> Namespace:
        """A namespace that the mirror does not hold yet: made a moment ago, or the API server is hard to reach."""
        timeout_s = min(NAMESPACE_READ_S, deadline_s / 2)
        namespace = await self._cluster.read_namespace(review.namespace, timeout_s=timeout_s)
        return namespace or admission.assumed_namespace(review.namespace)


def build_app(config: MeshConfig, cluster: Cluster, *, draining: Callable[[], bool] = bool) -> FastAPI:
    """The application that the API server calls; once `draining()` is true every answer ends its connection."""
    app = FastAPI(
        title="autotls webhook",
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        # FastAPI asks OpenTelemetry's environment three times a request whether somebody listens.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    for path, strict in ((MUTATE_PATH, False), (STRICT_PATH, True)):
        endpoint = Admission(config, cluster, strict=strict, draining=draining)
        app.add_route(path, endpoint, methods=["POST"])  # pyright: ignore[reportArgumentType]
    return app


async def read_body(scope: Scope, receive: Receive, deadline_s: float) -> bytes:
    """The whole body.

    Raises RequestError with 413 as soon as it is known to be too long, with 400 if it never came whole, and
    TimeoutError when the rest of it takes longer than `deadline_s` seconds.
    """
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and int(value[:20]) > MAX_BODY_BYTES:
            raise RequestError(413, _TOO_LONG)
    # Nearly always all there is. The client's own deadline ends the waiting for this first part.
    message = await receive()
    parts = [_part(message)]
    if len(parts[0]) > MAX_BODY_BYTES:
        raise RequestError(413, _TOO_LONG)
    if message.get("more_body", False):
        async with asyncio.timeout(deadline_s):
            await _read_rest(parts, receive)
    return parts[0] if len(parts) == 1 else b"".join(parts)


async def _read_rest(parts: list[bytes], receive: Receive) -> None:
    size = len(parts[0])
    more = True
    while more:
        message = await receive()
        parts.append(_part(message))
        size += len(parts[-1])
        if size > MAX_BODY_BYTES:
            raise RequestError(413, _TOO_LONG)
        more = message.get("more_body", False)


def _part(message: Message) -> bytes:
    if message["type"] != "http.request":
        raise RequestError(400, "the client went away")
    return message.get("body", b"")


@lru_cache(maxsize=64)
def deadline_of(query: bytes) -> float:
    """The seconds that `?timeout=5s` (a Go duration) leaves us; the default where there is none that can be read."""
    text = parse_qs(query.decode("latin-1")).get("timeout", [""])[0]
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return DEFAULT_DEADLINE_S - _MARGIN_S
    seconds = min(sum(float(number) * _SECONDS_PER[unit] for number, unit in parts), 30.0)
    return max(seconds - _MARGIN_S, seconds / 2)


def _refused(status: int, text: str) -> tuple[int, bytes]:
    REFUSED_REQUESTS.labels(str(status)).inc()
    with suppress(OSError, ValueError):
        _log.warning("request_refused", status=status, error=text)
    return status, msgspec.json.encode({"error": text})


def _log_outcome(review: Review, pod: Pod, outcome: Outcome) -> None:
    owner = next((ref for ref in pod.metadata.owner_references or () if ref.controller), None)
    _log.info(
        f"pod_{outcome.result}",
        ns=review.namespace,
        pod=pod.metadata.name or pod.metadata.generate_name,
        owner=f"{owner.kind}/{owner.name}" if owner else "",
        uid=review.uid,
        reason=outcome.reason,
        dry_run=review.dry_run,
        **({"message": outcome.message} if outcome.message else {}),
        **({"warnings": outcome.warnings} if outcome.warnings else {}),
    )


def _fault(error: Exception) -> dict[str, object]:
    """Type and places, not the text: a text may quote the pod, and a pod may hold what no log should."""
    places: list[str] = []
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        places.append(f"{code.co_filename.rpartition('/')[2]}:{trace.tb_lineno} {code.co_name}")
        trace = trace.tb_next
    return {"error": type(error).__name__, "at": places[-5:]}
