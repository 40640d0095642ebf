"""Which cluster: kubectl's flags, and what kubeconfig says without asking the API server."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from kube.errors import KubeconfigError
from kube.kubeconfig import DEFAULT_KUBECONFIG, existing, read_kubeconfig

_F = TypeVar("_F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Target:
    """A cluster as the user named it; None where kubectl's own defaults hold."""

    kubeconfig: str | None
    context: str | None


def cluster_options(command: _F) -> _F:
    """`--kubeconfig` and `--context`, handed to the command as `target`."""

    def invoke(*args: Any, kubeconfig: str | None, context: str | None, **kwargs: Any) -> Any:
        return command(*args, target=Target(kubeconfig, context), **kwargs)

    invoke.__doc__ = command.__doc__
    invoke.__name__ = command.__name__
    invoke.__click_params__ = list(getattr(command, "__click_params__", []))  # type: ignore[attr-defined]
    for option in (
        click.option("--context", metavar="NAME", help="Context of the kubeconfig to use."),
        click.option("--kubeconfig", metavar="FILE", help="Kubeconfig file [$KUBECONFIG, else ~/.kube/config]."),
    ):
        option(invoke)
    return cast(_F, invoke)


def kubeconfig_files(target: Target) -> tuple[Path, ...]:
    """The files that exist, in kubectl's order."""
    return existing(target.kubeconfig or os.environ.get("KUBECONFIG") or DEFAULT_KUBECONFIG)


def context_namespace(target: Target) -> str | None:
    """The namespace of the chosen context; None if it has none, or nothing can be read.

    Reading is forgiving: whoever makes a request next gets the real error.
    """
    try:
        return read_kubeconfig(kubeconfig_files(target)).context(target.context).namespace or None
    except KubeconfigError:
        return None
