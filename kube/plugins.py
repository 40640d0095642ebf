"""Credentials that a program hands out: exec plugins and auth providers, by the official client, which knows them.

The only module that imports it, and only kube.config imports this one, when a kubeconfig asks for it.
"""

# The official client ships as typed but leaves most parameters without a type.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import yaml
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config import ConfigException
from kubernetes.aio.config.kube_config import KubeConfigLoader, load_kube_config

from kube.access import Access, Authorization, tls_context
from kube.errors import KubeconfigError, scrub

_MALFORMED: Final = (ConfigException, OSError, ValueError, TypeError, AttributeError, KeyError, yaml.YAMLError)
_CREDENTIAL: Final = "BearerToken"


async def access_of(files: Sequence[Path], context: str, *, proxy: str) -> Access:
    """The way of that context, whose user has an exec plugin or an auth provider. Raises KubeconfigError."""
    configuration = Configuration()
    try:
        # persist_config would write refreshed tokens back into the user's file; a reader has no business there.
        loader = await load_kube_config(
            config_file=os.pathsep.join(str(file) for file in files),
            context=context,
            client_configuration=configuration,
            persist_config=False,
        )
        tls = _path(configuration.ssl_ca_cert), _path(configuration.cert_file), _path(configuration.key_file)
        trusted = tls_context(ca_file=tls[0], certificate=tls[1], key=tls[2], verify=bool(configuration.verify_ssl))
    except _MALFORMED as error:
        detail = scrub(str(error)) or type(error).__name__
        raise KubeconfigError(
            f"kubeconfig: {detail}", hint="`kubectl config view` shows the contexts that exist"
        ) from error
    if not configuration.api_key and not configuration.cert_file:
        # The official client logs what went wrong, and would go on as nobody.
        raise KubeconfigError(
            f"the credential program of context {context} gave no credential", hint="run kubectl, which shows its words"
        )
    return Access(
        str(configuration.host),
        trusted if str(configuration.host).startswith("https:") else None,
        _fresh(configuration, loader),
        server_name=configuration.tls_server_name or "",
        proxy=proxy,
    )


def _path(name: object) -> Path | None:
    return Path(str(name)) if name else None


def _fresh(configuration: Configuration, loader: KubeConfigLoader) -> Authorization:
    """The credential, asked for again when it has ended; the client calls it before every request."""

    async def give() -> str:
        # load_and_set returns at once while the plugin's expirationTimestamp is ahead; without one it runs the
        # plugin again, as kubectl does not, so tokens without an expiry are taken once.
        if hasattr(loader, "exec_plugin_expiry"):
            await loader.load_and_set(configuration)
        return str(configuration.api_key.get(_CREDENTIAL, ""))

    return give
