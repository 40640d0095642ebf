"""The certificate that a proxy serves now, and how it compares with the one issued. Pure but for `handshake`."""

import asyncio
import ssl
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from cryptography import x509

from ca.policy import renewal_at
from ca.profile import Lifetimes
from ca.slots import issued_at
from cli.checks.model import Verdict
from cli.errors import CliError
from kube.client import HttpApi
from kube.errors import ApiError
from kube.portforward import forwarded
from mesh import names
from mesh.svid import TrustBundle

_HANDSHAKE_S: Final = 10.0
# The kubelet re-reads Secrets within its sync period and cache TTL, about 60-90 s; Envoy reloads at once. A loaded node
# gets half a minute more before it is called a fault.
ARRIVAL: Final = timedelta(seconds=120)


class HandshakeError(CliError):
    """The proxy does not serve a certificate."""


@dataclass(frozen=True, slots=True)
class Served:
    """What came in the handshake. `fault`: what OpenSSL said of the chain that was sent; empty when it leads to the
    trust bundle."""

    leaf: x509.Certificate
    fault: str = ""


class State(StrEnum):
    """How the certificate served compares with the one issued; shown unchanged."""

    MATCH = "match"
    ARRIVING = "arriving"  # the Secret is newer, since less than ARRIVAL
    BEHIND = "behind"  # the Secret is newer, since longer
    AHEAD = "ahead"  # the Secret is older: somebody has put an old one back
    NOT_ISSUED = "not_issued"  # there is no Secret (any more)
    NOT_SERVED = "not_served"  # the handshake failed
    UNTRUSTED = "untrusted"  # the chain does not lead to the trust bundle
    EXPIRED = "expired"
    WRONG_IDENTITY = "wrong_identity"


@dataclass(frozen=True, slots=True)
class Comparison:
    """A state with its verdict and one sentence; `lag`: how long the newer of the two is there."""

    state: State
    verdict: Verdict
    message: str
    lag: timedelta | None = None


def uris_of(certificate: x509.Certificate) -> tuple[str, ...]:
    """The URI names of a certificate; none where it has no alternative names."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return tuple(found.get_values_for_type(x509.UniformResourceIdentifier))


def compare(
    served: Served, issued: x509.Certificate | None, identity: str, lifetimes: Lifetimes, now: datetime
) -> Comparison:
    """The first thing that is wrong, else how far the certificate served lags; `identity` is the SPIFFE ID due."""
    fault = _fault(served, identity, now)
    if fault:
        return fault
    leaf = served.leaf
    if issued is None:
        return Comparison(State.NOT_ISSUED, Verdict.WARN, "it is valid, and there is no Secret that it came from")
    if issued == leaf:
        return Comparison(State.MATCH, Verdict.OK, "it is the one issued")
    if issued_at(issued, lifetimes) < issued_at(leaf, lifetimes):
        lag = now - issued_at(leaf, lifetimes)
        message = f"the Secret holds an older one: the one served was issued {told(lag)} ago"
        return Comparison(State.AHEAD, Verdict.WARN, message, lag)
    lag = now - issued_at(issued, lifetimes)
    message = f"the Secret holds a newer one, issued {told(lag)} ago"
    if lag <= ARRIVAL:
        return Comparison(State.ARRIVING, Verdict.OK, f"{message}; the kubelet brings it within 60-90 s", lag)
    return Comparison(State.BEHIND, Verdict.FAIL, f"{message}; the kubelet should have brought it", lag)


def _fault(served: Served, identity: str, now: datetime) -> Comparison | None:
    """What makes the certificate useless, whatever was issued."""
    leaf = served.leaf
    if uris_of(leaf) != (identity,):
        found = ", ".join(uris_of(leaf)) or "nobody"
        return Comparison(State.WRONG_IDENTITY, Verdict.FAIL, f"it names {found}, not {identity}")
    if leaf.not_valid_after_utc <= now:
        return Comparison(State.EXPIRED, Verdict.FAIL, f"it expired {told(now - leaf.not_valid_after_utc)} ago")
    if served.fault:
        return Comparison(State.UNTRUSTED, Verdict.FAIL, f"it does not lead to the trust bundle: {served.fault}")
    return None


def renewal_due(leaf: x509.Certificate, lifetimes: Lifetimes) -> datetime:
    """When the CA renews it."""
    return renewal_at(leaf, lifetimes)


def told(span: timedelta) -> str:
    """`23 h 59 min`, `4 min`, `30 s`, `12 days`: rounded down."""
    seconds = max(0, int(span.total_seconds()))
    if seconds < 120:
        return f"{seconds} s"
    minutes = seconds // 60
    if minutes < 120:
        return f"{minutes} min"
    hours = minutes // 60
    if hours < 48:
        return f"{hours} h" + (f" {minutes % 60} min" if minutes % 60 else "")
    return f"{hours // 24} days"


async def handshake(api: HttpApi, *, namespace: str, pod: str, server_port: int, bundle: TrustBundle) -> Served:
    """What the pod's proxy serves on 15108, by a port-forward.

    TLS 1.3 only: its client has the server's certificate, and has verified it, before the server finds out that we
    show none of our own. So no identity is needed to look, and the proxy counts one `fail_verify_no_cert`. Raises
    HandshakeError, ApiError.
    """
    complaints: list[ApiError] = []
    async with forwarded(
        api, namespace=namespace, pod=pod, port=names.INBOUND_TLS_PORT, complain=complaints.append
    ) as port:
        try:
            return await _shake(port, str(server_port), bundle)
        except (OSError, TimeoutError, EOFError) as error:
            if complaints:
                raise complaints[0] from error
            reason = f"no answer within {_HANDSHAKE_S:g} s" if isinstance(error, TimeoutError) else str(error)
            raise HandshakeError(
                f"its proxy serves no certificate ({reason or 'the connection was closed'})",
                hint=f"kubectl -n {namespace} logs {pod} -c {names.PROXY_CONTAINER}",
            ) from error


async def _shake(port: int, server_name: str, bundle: TrustBundle) -> Served:
    try:
        return Served(await _leaf(port, server_name, _context(bundle)))
    except ssl.SSLCertVerificationError as error:
        # Once more without judging, to show what it is that was refused.
        return Served(await _leaf(port, server_name, _context(None)), error.verify_message)


def _context(bundle: TrustBundle | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    # The name is in the URI, which `compare` looks at; OpenSSL would look for a DNS name.
    context.check_hostname = False
    context.set_alpn_protocols([names.ALPN_TCP])
    if bundle is None:
        context.verify_mode = ssl.CERT_NONE
    else:
        context.load_verify_locations(cadata=bundle.pem.decode())
    return context


async def _leaf(port: int, server_name: str, context: ssl.SSLContext) -> x509.Certificate:
    async with asyncio.timeout(_HANDSHAKE_S):
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=server_name)
    try:
        der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        return x509.load_der_x509_certificate(der)
    finally:
        writer.transport.abort()
