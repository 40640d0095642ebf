"""Which cluster: kubectl's flags, and what kubeconfig says without asking the API server."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import click
import yaml

_F = TypeVar("_F", bound=Callable[..., Any])
DEFAULT_KUBECONFIG: Final = "~/.kube/config"


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
    paths = target.kubeconfig or os.environ.get("KUBECONFIG") or DEFAULT_KUBECONFIG
    files = (Path(path).expanduser() for path in paths.split(os.pathsep) if path)
    return tuple(path for path in files if path.is_file())


def context_namespace(target: Target) -> str | None:
    """The namespace of the chosen context; None if it has none, or nothing can be read.

    Reading is forgiving: whoever makes a request next gets the real error.
    """
    current = target.context
    contexts: dict[str, Any] = {}
    for path in kubeconfig_files(target):
        try:
            loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError):
            continue
        if not isinstance(loaded, dict):
            continue
        content = cast(dict[str, Any], loaded)
        current = current or content.get("current-context")
        listed = content.get("contexts")
        for entry in cast(list[Any], listed) if isinstance(listed, list) else ():
            if isinstance(entry, dict):
                named = cast(dict[str, Any], entry)
                contexts.setdefault(str(named.get("name")), named.get("context"))
    chosen = contexts.get(str(current or ""))
    namespace = cast(dict[str, Any], chosen).get("namespace") if isinstance(chosen, dict) else None
    return namespace if isinstance(namespace, str) else None
