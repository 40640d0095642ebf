"""Who is calling: the pod whose configuration a stream gets.

Two facts that a caller cannot choose must agree: the certificate (its ServiceAccount) and the address it calls from
(its pod). The node id in its request is a claim; it may only repeat what these two say.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol
from urllib.parse import unquote

from cryptography import x509

from discovery.errors import PeerError, Refusal
from discovery.snapshot import PodFacts
from mesh.spiffe import SpiffeId, SpiffeIdError, TrustDomain


class Pods(Protocol):
    """What is known about pods: discovery.world.World."""

    def pod_at(self, address: str) -> PodFacts | None: ...
    def pod(self, key: str) -> PodFacts | None: ...


_NO_CLAIM: Final = ""


def peer_address(peer: str) -> str:
    """The address in gRPC's name of a peer: `ipv4:10.0.0.1:4242`, `ipv6:%5Bfd00::1%5D:4242`. Raises PeerError."""
    family, _, rest = peer.partition(":")
    host = unquote(rest).rpartition(":")[0]
    if family == "ipv4" and host:
        return host
    if family == "ipv6" and host:
        bare = host.strip("[]").partition("%")[0]
        # A socket for both families shows IPv4 callers as mapped addresses.
        return bare.removeprefix("::ffff:") if "." in bare else bare
    raise PeerError(Refusal.UNKNOWN_ADDRESS, f"no pod calls from {peer[:64]!r}")


@dataclass(frozen=True, slots=True)
class Caller:
    """What a verified certificate says: the SPIFFE ID, and until when."""

    identity: str
    not_after: datetime


def caller_of(certificate_pem: bytes, trust_domain: TrustDomain) -> Caller:
    """Raises PeerError unless the certificate carries exactly one SPIFFE ID, and one of `trust_domain`.

    The chain was verified in the handshake; X509-SVID 2 asks for exactly one URI.
    """
    try:
        certificate = x509.load_pem_x509_certificate(certificate_pem)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension):
        raise PeerError(Refusal.NO_CERTIFICATE, "the certificate names nobody") from None
    try:
        (uri,) = uris
        identity = SpiffeId.parse(uri)
    except (ValueError, SpiffeIdError):
        raise PeerError(Refusal.NO_CERTIFICATE, "the certificate does not name exactly one SPIFFE ID") from None
    if identity.trust_domain != trust_domain:
        raise PeerError(Refusal.FOREIGN_IDENTITY, f"{identity} is not of {trust_domain}")
    return Caller(str(identity), certificate.not_valid_after_utc)


def claimed_pod(node_id: str) -> str:
    """`namespace/name` from the node id `<name>.<namespace>`; a namespace has no dots. Empty if it is none."""
    name, _, namespace = node_id.rpartition(".")
    return f"{namespace}/{name}" if name and namespace else _NO_CLAIM


def authenticate(identity: str, address: str, node_id: str, pods: Pods) -> PodFacts:
    """The pod that calls from `address` with the certificate of `identity`.

    The kubelet reports a pod's address up to a second after its sidecar runs. Until then the claimed pod is believed
    if it runs under the very same ServiceAccount and has no address yet; `still_valid` looks again once it has one.
    Raises PeerError.
    """
    claim = claimed_pod(node_id)
    pod = pods.pod_at(address)
    if pod is None:
        waiting = pods.pod(claim) if claim else None
        if waiting is None or waiting.addresses:
            raise PeerError(Refusal.UNKNOWN_ADDRESS, f"no pod of this cluster has the address {address}", retry=True)
        pod = waiting
    if pod.identity != identity:
        raise PeerError(Refusal.OTHER_IDENTITY, f"{pod.key} at {address} does not run as {identity}")
    if claim and claim != pod.key:
        raise PeerError(Refusal.OTHER_POD, f"{pod.key} asked for the configuration of {claim[:300]}")
    return pod


def still_valid(pod: PodFacts | None, identity: str, uid: str, address: str) -> bool:
    """True while the pod of an open stream is the one that opened it."""
    if pod is None or pod.uid != uid or pod.identity != identity:
        return False
    return not pod.addresses or address in pod.addresses
