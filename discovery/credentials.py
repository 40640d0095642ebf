"""The serving certificate and the trust bundle of the ADS server, taken up as they change without dropping a stream."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

import grpc
import structlog
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from discovery.errors import CredentialsError
from discovery.metrics import CERTIFICATE_LOADS, CERTIFICATE_NOT_AFTER
from mesh import names

# The kubelet swaps this link when all files of a new version are there (kubernetes pkg/volume/util/atomic_writer.go).
_DATA_LINK: Final = "..data"
_FILES: Final = (names.TLS_CERT_KEY, names.TLS_PRIVATE_KEY_KEY, names.TRUST_BUNDLE_KEY)
POLL_S: Final = 5.0

_log: Final = structlog.get_logger("discovery")


class ServerCredentials:
    """The pair and bundle in `directory`. gRPC asks for them at every handshake, in a thread of its own."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._current: Any = None
        self._fingerprint = b""
        self._handed_out = b""

    def __repr__(self) -> str:
        return f"ServerCredentials({str(self._directory)!r}, loaded={self.loaded})"

    @property
    def loaded(self) -> bool:
        return self._current is not None

    def load(self) -> bool:
        """Takes up the files if they changed; True if they did. Raises CredentialsError and keeps what it had."""
        # Resolved once: reads through the link could see two versions.
        link = self._directory / _DATA_LINK
        folder = link.resolve() if link.exists() else self._directory
        try:
            files = {name: (folder / name).read_bytes() for name in _FILES}
        except OSError as error:
            raise CredentialsError(
                f"serving certificate in {self._directory}: {error.strerror or 'unreadable'}",
                hint=f"Secret {names.DISCOVERY}-tls needs {', '.join(_FILES)}",
            ) from None
        fingerprint = hashlib.sha256(b"\0".join(files.values())).digest()
        if fingerprint == self._fingerprint:
            return False
        leaf = _checked(files, self._directory)
        self._current = grpc.ssl_server_certificate_configuration(
            [(files[names.TLS_PRIVATE_KEY_KEY], files[names.TLS_CERT_KEY])],
            root_certificates=files[names.TRUST_BUNDLE_KEY],
        )
        self._fingerprint = fingerprint
        CERTIFICATE_LOADS.labels("loaded").inc()
        CERTIFICATE_NOT_AFTER.set(leaf.not_valid_after_utc.timestamp())
        return True

    def server_credentials(self) -> Any:
        """Credentials for a server that asks every client for a certificate of the bundle."""
        return grpc.dynamic_ssl_server_credentials(self._current, self._fetch, require_client_authentication=True)

    def _fetch(self) -> Any:
        # None: no change. gRPC builds a new TLS context otherwise, which costs as much as the handshake itself.
        if self._handed_out == self._fingerprint:
            return None
        self._handed_out = self._fingerprint
        return self._current

    async def watch(self, *, poll_s: float = POLL_S, sleep: Callable[[float], Awaitable[Any]] = asyncio.sleep) -> None:
        """Loads whatever appears, for ever; unusable files are counted and logged once, the old ones kept."""
        last = ""
        while True:
            await sleep(poll_s)
            try:
                if self.load():
                    _log.info("serving_certificate_loaded")
                last = ""
            except CredentialsError as error:
                if str(error) != last:
                    CERTIFICATE_LOADS.labels("refused").inc()
                    _log.warning("serving_certificate_refused", error=str(error))
                last = str(error)


def _checked(files: Mapping[str, bytes], directory: Path) -> x509.Certificate:
    """The leaf, if the key is its own: gRPC would take a mismatched pair and fail every handshake."""
    try:
        leaf = x509.load_pem_x509_certificates(files[names.TLS_CERT_KEY])[0]
        key = serialization.load_pem_private_key(files[names.TLS_PRIVATE_KEY_KEY], password=None)
        x509.load_pem_x509_certificates(files[names.TRUST_BUNDLE_KEY])
        fits = key.public_key() == leaf.public_key()
    except (ValueError, TypeError):
        fits = False
        leaf = None
    if leaf is None or not fits:
        # The parser's own text could quote what it read.
        raise CredentialsError(
            f"serving certificate in {directory}: no certificate and key that belong together",
            hint=f"delete Secret {names.DISCOVERY}-tls; the CA makes it anew",
        )
    return leaf
