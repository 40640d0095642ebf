"""From a kubeconfig, or the Pod's own token, to an Access. The edge: files, environment, clock."""

import base64
import os
import ssl
import tempfile
import time
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from kube.access import Access, Authorization, TokenFile, always, basic, bearer, tls_context
from kube.errors import KubeconfigError, scrub
from kube.kubeconfig import DEFAULT_KUBECONFIG, Found, User, existing, read_kubeconfig

_SERVICE_HOST: Final = "KUBERNETES_SERVICE_HOST"
_SERVICE_PORT: Final = "KUBERNETES_SERVICE_PORT"
# Where the kubelet mounts them (ServiceAccount admission, kube-api-access volume).
IN_POD: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")


async def load_access(*, kubeconfig: str | None, context: str | None) -> Access:
    """The way of `kubeconfig`, else in-cluster when in a Pod, else of $KUBECONFIG or ~/.kube/config.

    Raises KubeconfigError.
    """
    if kubeconfig is None and context is None and os.environ.get(_SERVICE_HOST):
        return _in_cluster()
    paths = kubeconfig or os.environ.get("KUBECONFIG") or DEFAULT_KUBECONFIG
    files = existing(paths)
    if not files:
        raise KubeconfigError(f"no kubeconfig at {paths}", hint="set KUBECONFIG or pass --kubeconfig")
    content = read_kubeconfig(files)
    name = context or content.current
    chosen = content.find(name)
    if chosen.user.exec is not None or chosen.user.auth_provider is not None:
        # Not at the top: the official client costs 0.3 s of CPU, and only credentials from programs need it.
        from kube.plugins import access_of

        return await access_of(files, name, proxy=_proxy(chosen.cluster.server, chosen.cluster.proxy_url))
    try:
        return _access(chosen)
    except (OSError, ValueError) as error:
        detail = scrub(str(error)) or type(error).__name__
        raise KubeconfigError(
            f"kubeconfig: {detail}", hint="keys and certificates are PEM, or PEM as base64"
        ) from error


def _in_cluster() -> Access:
    host, port = os.environ[_SERVICE_HOST], os.environ.get(_SERVICE_PORT) or "443"
    server = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
    try:
        token = TokenFile(IN_POD / "token", time.monotonic)
        tls = tls_context(ca_file=IN_POD / "ca.crt")
    except (OSError, ValueError) as error:
        raise KubeconfigError(
            f"in-cluster configuration: {scrub(str(error))}",
            hint="the Pod needs its ServiceAccount token (automountServiceAccountToken)",
        ) from error
    return Access(server, tls, token.authorization, proxy=_proxy(server, ""))


def _access(found: Found) -> Access:
    """Raises OSError, ValueError."""
    cluster = found.cluster
    server = cluster.server.rstrip("/")
    return Access(
        server,
        _tls(found) if server.startswith("https:") else None,
        _authorization(found.user, found.user_folder),
        server_name=cluster.tls_server_name,
        proxy=_proxy(server, cluster.proxy_url),
    )


def _tls(found: Found) -> ssl.SSLContext:
    """Raises OSError, ValueError. As with kubectl, what is written into the kubeconfig wins over a file's name."""
    cluster, user = found.cluster, found.user
    with tempfile.TemporaryDirectory(prefix="autotls-") as text:
        # OpenSSL reads keys from files only. Nobody else may look into a folder of mkdtemp's.
        folder = Path(text)
        return tls_context(
            ca_file=_file(
                cluster.certificate_authority_data, found.cluster_folder, cluster.certificate_authority, folder / "ca"
            ),
            certificate=_file(user.client_certificate_data, found.user_folder, user.client_certificate, folder / "crt"),
            key=_file(user.client_key_data, found.user_folder, user.client_key, folder / "key"),
            verify=not cluster.insecure_skip_tls_verify,
        )


def _file(data: str, folder: Path, name: str, made: Path) -> Path | None:
    """The file of that name; `made` with what is given as base64."""
    if not data:
        return folder / name if name else None
    made.write_bytes(base64.b64decode(data))
    return made


def _authorization(user: User, folder: Path) -> Authorization | None:
    """Raises OSError, ValueError."""
    if user.token_file:
        return TokenFile(folder / user.token_file, time.monotonic).authorization
    if user.token:
        return always(bearer(user.token))
    return always(basic(user.username, user.password)) if user.username else None


def _proxy(server: str, configured: str) -> str:
    """What the kubeconfig says, else the environment (HTTPS_PROXY, NO_PROXY)."""
    if configured:
        return configured
    parts = urlsplit(server)
    return "" if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme, "")
