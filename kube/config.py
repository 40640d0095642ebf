"""Where the API server is and who we are: kubeconfig, or the Pod's own token.

The official client does the work: contexts, merged files, exec plugins, client certificates, token files.
"""

# The official client ships as typed but leaves most parameters without a type.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import yaml
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config import ConfigException, load_incluster_config
from kubernetes.aio.config.kube_config import KubeConfigLoader, load_kube_config

from kube.errors import KubeconfigError, scrub

DEFAULT_KUBECONFIG: Final = "~/.kube/config"
_SERVICE_HOST: Final = "KUBERNETES_SERVICE_HOST"
_MALFORMED = (ConfigException, OSError, ValueError, TypeError, AttributeError, KeyError, yaml.YAMLError)


async def load_configuration(*, kubeconfig: str | None, context: str | None) -> Configuration:
    """The client configuration: `kubeconfig`, else in-cluster when in a Pod, else $KUBECONFIG or ~/.kube/config.

    Raises KubeconfigError.
    """
    configuration = Configuration()
    if kubeconfig is None and context is None and os.environ.get(_SERVICE_HOST):
        _load_in_cluster(configuration)
    else:
        await _load_kubeconfig(configuration, kubeconfig or os.environ.get("KUBECONFIG") or DEFAULT_KUBECONFIG, context)
    return configuration


def _load_in_cluster(configuration: Configuration) -> None:
    try:
        # Re-reads the projected token every 60 s: the kubelet replaces it at 80 % of its life.
        load_incluster_config(client_configuration=configuration)
    except (ConfigException, OSError) as error:
        raise KubeconfigError(
            f"in-cluster configuration: {scrub(str(error))}",
            hint="the Pod needs its ServiceAccount token (automountServiceAccountToken)",
        ) from error


async def _load_kubeconfig(configuration: Configuration, paths: str, context: str | None) -> None:
    _require_file(paths)
    try:
        # persist_config would write refreshed tokens back into the user's file; a reader has no business there.
        loader = await load_kube_config(
            config_file=paths, context=context, client_configuration=configuration, persist_config=False
        )
    except _MALFORMED as error:
        detail = scrub(str(error)) or type(error).__name__
        raise KubeconfigError(
            f"kubeconfig: {detail}", hint="`kubectl config view` shows the contexts that exist"
        ) from error

    if configuration.api_key:
        configuration.refresh_api_key_hook = _refresher(loader)  # pyright: ignore[reportAttributeAccessIssue]


def _require_file(paths: str) -> None:
    # The official loader only logs a missing file and fails later with words about a missing key.
    files = [Path(path).expanduser() for path in paths.split(os.pathsep) if path]
    if not any(path.is_file() for path in files):
        raise KubeconfigError(
            f"no kubeconfig at {os.pathsep.join(str(path) for path in files)}",
            hint="set KUBECONFIG or pass --kubeconfig",
        )


def _refresher(loader: KubeConfigLoader) -> Callable[[Configuration], Awaitable[None]]:
    """A hook that keeps an exec plugin's token fresh; the client calls it before every request."""

    async def refresh(configuration: Configuration) -> None:
        # load_and_set returns at once while the plugin's expirationTimestamp is ahead; without one it runs the
        # plugin again, as kubectl does not, so tokens without an expiry are taken once.
        if hasattr(loader, "exec_plugin_expiry"):
            await loader.load_and_set(configuration)

    return refresh
