"""The ADS server: delta xDS over gRPC with mutual TLS. Everything it decides is decided in the pure parts."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime
from typing import Any, Final

import grpc
import grpc.aio
import structlog

from discovery.callers import Callers, Context
from discovery.credentials import ServerCredentials
from discovery.errors import PeerError, Refusal
from discovery.metrics import PUSHED, REFUSED, REJECTED, STREAMS, STREAMS_OPENED, short
from discovery.requests import Request, parse_request
from discovery.sink import METHOD as SINK_METHOD
from discovery.sink import Consumer, Sink
from discovery.state import State
from discovery.streams import Stream, Streams, Tapped, nobody
from discovery.tls import Mode
from mesh import names
from mesh.spiffe import TrustDomain

METHOD: Final = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
# First answers being made or sent at the same time; each may be as large as the whole mesh.
INITIAL_SYNCS: Final = 8
# Seconds a proxy may take to say who it is, and to take in one answer.
FIRST_REQUEST_S: Final = 10.0
WRITE_S: Final = 30.0
# How often removals that wait for their time are looked at.
SWEEP_S: Final = 1.0

_OPTIONS: Final = (
    # A proxy or node that vanished without a word is noticed within 40 s.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # Envoy pings too; gRPC's default would call that abuse and close the connection.
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.so_reuseport", 0),
    # TLS buffers of each connection; the default (16 kB) costs a thousand idle proxies 20 MB more.
    ("grpc.tsi.max_frame_size", 4096),
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
)
_log: Final = structlog.get_logger("discovery")


class Server:
    """Serves `state` once `start` is called, which must not be before the state is synced.

    `date` tells the time of certificates (UTC), `clock` seconds that only grow; `consumers` take the proxies' access
    logs, by log name; `tapped` says whose are wanted by `autotls tap`.
    """

    def __init__(
        self,
        state: State,
        trust_domain: TrustDomain,
        credentials: ServerCredentials,
        *,
        date: Callable[[], datetime],
        address: str = f"[::]:{names.XDS_PORT}",
        clock: Callable[[], float] = time.monotonic,
        consumers: Sequence[Consumer] = (),
        tapped: Tapped = nobody,
    ) -> None:
        self._state, self._clock, self._date = state, clock, date
        self._callers = Callers(state, trust_domain, date=date, clock=clock)
        self.sink = Sink(self._callers, consumers, clock=clock)
        self.credentials, self._tapped = credentials, tapped
        self.streams = Streams(state)
        self._initial = asyncio.Semaphore(INITIAL_SYNCS)
        self._server = grpc.aio.server(options=_OPTIONS)
        self._server.add_generic_rpc_handlers((_Handler(self._delta, self.sink.stream),))
        self.port = self._server.add_secure_port(address, credentials.server_credentials())

    async def start(self) -> None:
        await self._server.start()

    async def stop(self, grace_s: float = 1.0) -> None:
        """Ends every stream; the proxies keep what they have and go to another replica."""
        await self._server.stop(grace_s)

    async def sweep(self) -> None:
        """For ever: wakes the streams whose lingering removals are due, and ends those whose certificate has expired.

        Nothing in TLS ends a connection when the certificate that opened it does. The proxy is back in a second or
        two with its new one.
        """
        while True:
            await asyncio.sleep(SWEEP_S)
            now, date = self._clock(), self._date()
            for stream in list(self.streams):
                due = stream.subscriber.next_due
                if due is not None and due <= now:
                    stream.wake.set()
                if stream.caller.not_after <= date:
                    stream.end()

    async def _delta(self, requests: AsyncIterator[Request], context: Context) -> None:
        try:
            stream, first = await self._open(requests, context)
        except PeerError as error:
            REFUSED.labels(error.refusal.value).inc()
            _log.warning("stream_refused", reason=error.refusal.value, error=error.message, peer=context.peer())
            code = grpc.StatusCode.UNAVAILABLE if error.retry else grpc.StatusCode.PERMISSION_DENIED
            await context.abort(code, error.message)
            return
        STREAMS_OPENED.inc()
        STREAMS.inc()
        self.streams.add(stream)
        reader = asyncio.create_task(self._read(requests, stream), name=f"ads-reader {stream.pod_key}")
        try:
            stream.ask(first)
            await self._write(stream, context)
        finally:
            reader.cancel()
            self.streams.remove(stream)
            STREAMS.dec()

    async def _open(self, requests: AsyncIterator[Request], context: Context) -> tuple[Stream, Request]:
        peer = self._callers.peer_of(context)
        try:
            async with asyncio.timeout(FIRST_REQUEST_S):
                first = await anext(requests)
        except (TimeoutError, StopAsyncIteration):
            raise PeerError(Refusal.OTHER_POD, f"{peer.address} did not say which proxy it is", retry=True) from None
        pod = await self._callers.pod_of(peer, first.node_id)
        mode = Mode.STRICT if first.mode == Mode.STRICT.value else Mode.OPTIONAL
        return Stream(pod, peer.caller, peer.address, mode, self._state, tapped=self._tapped), first

    async def _read(self, requests: AsyncIterator[Request], stream: Stream) -> None:
        try:
            async for request in requests:
                if request.rejected:
                    # The proxy keeps what it had. The message names fields of the configuration, never a secret.
                    REJECTED.labels(short(request.type_url)).inc()
                    _log.error(
                        "resources_rejected",
                        pod=stream.pod_key,
                        type=short(request.type_url),
                        error=request.rejected,
                    )
                stream.ask(request)
        finally:
            stream.end()

    async def _write(self, stream: Stream, context: Context) -> None:
        while True:
            await stream.wake.wait()
            stream.wake.clear()
            while stream.requests and not stream.ended:
                request = stream.requests.popleft()
                if stream.subscriber.knows(request.type_url):
                    await _send(stream.subscriber.on_request(request, self._clock()), context)
                else:
                    # The first answer of a type holds everything: made only when its turn to be sent has come.
                    async with self._initial:
                        await _send(stream.subscriber.on_request(request, self._clock()), context)
            if not stream.ended:
                await _send(stream.news(self._clock()), context)
            if stream.ended:
                return


async def _send(messages: list[bytes], context: Context) -> None:
    for message in messages:
        async with asyncio.timeout(WRITE_S):
            await context.write(message)
        PUSHED.inc(len(message))


class _Handler(grpc.GenericRpcHandler):
    """Two methods; their answers are bytes already, and so is what the sink reads."""

    def __init__(self, delta: Callable[..., Any], sink: Callable[..., Any]) -> None:
        self._methods = {
            METHOD: grpc.stream_stream_rpc_method_handler(
                delta, request_deserializer=parse_request, response_serializer=_as_it_is
            ),
            SINK_METHOD: grpc.stream_unary_rpc_method_handler(
                sink, request_deserializer=_as_it_is, response_serializer=_as_it_is
            ),
        }

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        return self._methods.get(handler_call_details.method)


def _as_it_is(message: bytes) -> bytes:
    return message
