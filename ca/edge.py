"""What the edge of the CA hands to every part: API, owner, configuration, time and randomness."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric import ec

from ca import issuer
from ca.profile import SERIAL_BITS, Constraints, Lifetimes
from ca.secret import Owner
from kube.client import Api
from mesh.config import MeshConfig
from mesh.spiffe import TrustDomain


def new_serial() -> int:
    """128 random bits, never zero."""
    return secrets.randbits(SERIAL_BITS) or 1


@dataclass(frozen=True, slots=True)
class Edge:
    """One CA process's ties to the world; tests replace the last three."""

    api: Api
    config: MeshConfig
    owner: Owner
    trust_domain: TrustDomain
    lifetimes: Lifetimes
    clock: Callable[[], datetime]
    new_key: Callable[[], ec.EllipticCurvePrivateKey] = issuer.new_key
    new_serial: Callable[[], int] = new_serial

    @classmethod
    def of(cls, api: Api, config: MeshConfig, clock: Callable[[], datetime]) -> "Edge":
        return cls(
            api=api,
            config=config,
            owner=Owner(config.control_plane_namespace),
            trust_domain=TrustDomain.parse(config.trust_domain),
            lifetimes=Lifetimes.of(config.identity),
            clock=clock,
        )

    @property
    def namespace(self) -> str:
        """The control plane's."""
        return self.config.control_plane_namespace

    @property
    def constraints(self) -> Constraints:
        return Constraints(self.trust_domain, self.config.control_plane_namespace)
