"""The serving certificate, changed under a running server without dropping a connection.

The server's own ("outer") context holds no certificate: its SNI callback, which OpenSSL also calls for clients
that send no name, gives every new handshake the current inner context. Loading a new pair into a live context
instead would leave it broken when certificate and key do not match: every handshake then fails.
"""

import asyncio
import hashlib
import ssl
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import structlog
from cryptography import x509

from mesh import names
from mesh.errors import AutotlsError
from webhook.metrics import CERTIFICATE_LOADS, CERTIFICATE_NOT_AFTER

# The kubelet swaps this link when all files of a new version are there (kubernetes pkg/volume/util/atomic_writer.go).
_DATA_LINK: Final = "..data"
POLL_S: Final = 5.0

_log: Final = structlog.get_logger("webhook")


class CertificateError(AutotlsError):
    """The files are no certificate and key that belong together. Never contains their content."""


class ServingCertificate:
    """The pair in `directory`; `load` is the only thing that changes it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._current: ssl.SSLContext | None = None
        self._fingerprint = b""
        self.not_after: datetime | None = None

    def __repr__(self) -> str:
        return f"ServingCertificate({str(self._directory)!r}, not_after={self.not_after})"

    @property
    def loaded(self) -> bool:
        return self._current is not None

    def load(self) -> bool:
        """Takes up the files if they changed; True if they did. Raises CertificateError and keeps the old pair."""
        # Resolved once: two reads through the link could see two versions.
        link = self._directory / _DATA_LINK
        directory = link.resolve() if link.exists() else self._directory
        certificate, key = directory / names.TLS_CERT_KEY, directory / names.TLS_PRIVATE_KEY_KEY
        try:
            pem = certificate.read_bytes()
            fingerprint = hashlib.sha256(pem + b"\0" + key.read_bytes()).digest()
            if fingerprint == self._fingerprint:
                return False
            not_after = x509.load_pem_x509_certificate(pem).not_valid_after_utc
            context = _context()
            context.load_cert_chain(certificate, key)
        except (OSError, ValueError) as error:
            # ssl.SSLError is an OSError; both name a reason, neither quotes the file.
            raise CertificateError(
                f"serving certificate in {self._directory}: {_reason(error)}",
                hint=f"Secret {names.WEBHOOK_TLS_SECRET} needs {names.TLS_CERT_KEY} and {names.TLS_PRIVATE_KEY_KEY}",
            ) from None
        self._current, self._fingerprint, self.not_after = context, fingerprint, not_after
        CERTIFICATE_LOADS.labels("loaded").inc()
        CERTIFICATE_NOT_AFTER.set(not_after.timestamp())
        return True

    def server_context(self) -> ssl.SSLContext:
        """The context for a server to listen with, for ever; new handshakes get what was loaded last."""

        def choose(connection: ssl.SSLObject | ssl.SSLSocket, _name: str | None, _outer: ssl.SSLContext) -> int | None:
            if self._current is None:
                return ssl.ALERT_DESCRIPTION_INTERNAL_ERROR
            connection.context = self._current
            return None

        outer = _context()
        outer.sni_callback = choose
        return outer

    async def watch(self, *, poll_s: float = POLL_S, sleep: Callable[[float], Awaitable[Any]] = asyncio.sleep) -> None:
        """Loads whatever appears, for ever; a pair that cannot be used is counted and logged once, the old one kept."""
        last_error = ""
        while True:
            try:
                if self.load():
                    _log.info("certificate_loaded", not_after=str(self.not_after))
                last_error = ""
            except CertificateError as error:
                CERTIFICATE_LOADS.labels("failed").inc()
                if str(error) != last_error:
                    _log.error("certificate_not_loaded", error=str(error), still_serving=self.loaded)
                last_error = str(error)
            await sleep(poll_s)


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # The API server speaks HTTP/1.1 to webhooks on purpose (k8s.io/apiserver pkg/util/webhook/client.go).
    context.set_alpn_protocols(["http/1.1"])
    return context


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, ssl.SSLError):
        return f"certificate and key do not match or are not PEM ({error.reason})"
    if isinstance(error, OSError):
        return f"{Path(error.filename).name if error.filename else 'file'}: {error.strerror}"
    return "tls.crt is not a PEM certificate"
