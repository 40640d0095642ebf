"""Where an API server is, and who we are to it: all that a client needs, whatever it was read from."""

import base64
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

# Gives the value of a request's `Authorization` header, fresh; empty where a client certificate is the credential.
Authorization = Callable[[], Awaitable[str]]

# client-go reads a token file again after that time (rest/token_source.go: period); the kubelet replaces a Pod's token
# at 80 % of its life.
TOKEN_PERIOD_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Access:
    """`server` is a URL without a slash at its end; a proxy's URL may hold a password, so it never prints."""

    server: str
    tls: ssl.SSLContext | None = field(default=None, repr=False)  # None for http://
    authorization: Authorization | None = field(default=None, repr=False)
    server_name: str = ""  # what the certificate must name instead of the URL's host
    proxy: str = field(default="", repr=False)


def bearer(token: str) -> str:
    return f"Bearer {token}"


def basic(username: str, password: str) -> str:
    """RFC 7617."""
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()


def always(value: str) -> Authorization:
    """A credential that does not change."""

    async def give() -> str:
        return value

    return give


class TokenFile:
    """A bearer token in a file that somebody replaces before it ends; `clock` gives seconds that only go forward."""

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        """Raises OSError, ValueError when there is no token yet."""
        self._path, self._clock = path, clock
        self._token = _read_token(path)
        self._read_at = clock()

    async def authorization(self) -> str:
        if self._clock() - self._read_at >= TOKEN_PERIOD_S:
            self._read_at = self._clock()
            # As client-go: the token at hand may still be good, and if it is not the API server says so.
            with suppress(OSError, ValueError):
                self._token = _read_token(self._path)
        return bearer(self._token)


def _read_token(path: Path) -> str:
    token = path.read_text(encoding="utf-8").strip()
    if not token:
        raise ValueError(f"{path} is empty")
    return token


def tls_context(
    *, ca_file: Path | None, certificate: Path | None = None, key: Path | None = None, verify: bool = True
) -> ssl.SSLContext:
    """Trusts the CAs of the file, without one those of the machine; shows the certificate.

    Raises OSError for files that cannot be read or are no PEM.
    """
    context = ssl.create_default_context(cafile=ca_file)
    if certificate:
        context.load_cert_chain(certificate, keyfile=key)
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
