"""Kubeconfigs as kubectl reads them: several files merged, one context chosen.

Sources: client-go tools/clientcmd/api/v1/types.go (fields) and loader.go (the first file that names something wins; a
relative path is relative to the file that holds it).
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import yaml

from kube.errors import KubeconfigError

DEFAULT_KUBECONFIG: Final = "~/.kube/config"
_HINT: Final = "`kubectl config view` shows the contexts that exist"
# libyaml's loader where PyYAML has it: tens of times faster, the same language.
_Loader: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
V = TypeVar("V")


class _Kebab(msgspec.Struct, frozen=True, rename="kebab"):
    pass


class Cluster(_Kebab, frozen=True):
    server: str = ""
    certificate_authority: str = ""
    certificate_authority_data: str = ""
    insecure_skip_tls_verify: bool = False
    tls_server_name: str = ""
    proxy_url: str = ""


class User(_Kebab, frozen=True):
    """Who we are. Holds keys and tokens, so it never shows them."""

    client_certificate: str = ""
    client_certificate_data: str = ""
    client_key: str = ""
    client_key_data: str = ""
    token: str = ""
    token_file: str = msgspec.field(name="tokenFile", default="")
    username: str = ""
    password: str = ""
    exec: dict[str, Any] | None = None
    auth_provider: dict[str, Any] | None = None

    def __repr__(self) -> str:
        return f"User(<{', '.join(name for name in self.__struct_fields__ if getattr(self, name))}>)"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        # msgspec gives every Struct one that shows all fields; rich prefers it to __repr__.
        return [("fields", [name for name in self.__struct_fields__ if getattr(self, name)])]


class Context(_Kebab, frozen=True):
    cluster: str = ""
    user: str = ""
    namespace: str = ""


class _NamedCluster(_Kebab, frozen=True):
    name: str
    cluster: Cluster | None = None


class _NamedUser(_Kebab, frozen=True):
    name: str
    user: User | None = None


class _NamedContext(_Kebab, frozen=True):
    name: str
    context: Context | None = None


class _File(_Kebab, frozen=True):
    clusters: tuple[_NamedCluster, ...] | None = None
    users: tuple[_NamedUser, ...] | None = None
    contexts: tuple[_NamedContext, ...] | None = None
    current_context: str | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """A context's cluster and user, with the folders that their relative paths start from."""

    cluster: Cluster
    cluster_folder: Path
    user: User
    user_folder: Path


@dataclass(frozen=True, slots=True)
class Kubeconfig:
    """All files together; clusters and users with the folder of the file that named them first."""

    clusters: Mapping[str, tuple[Cluster, Path]]
    users: Mapping[str, tuple[User, Path]]
    contexts: Mapping[str, Context]
    current: str

    def context(self, name: str | None) -> Context:
        """That context, else the current one. Raises KubeconfigError."""
        wanted = name or self.current
        if not wanted:
            raise KubeconfigError("kubeconfig: there is no current-context", hint=_HINT)
        return _named("context", self.contexts, wanted)

    def find(self, name: str | None) -> Found:
        """Where that context (else the current one) leads. Raises KubeconfigError."""
        context = self.context(name)
        cluster, cluster_folder = _named("cluster", self.clusters, context.cluster)
        if not cluster.server:
            raise KubeconfigError(f"kubeconfig: cluster {context.cluster} has no server", hint=_HINT)
        # Nobody in particular may be asked for as well.
        user, user_folder = _named("user", self.users, context.user) if context.user else (User(), Path())
        return Found(cluster, cluster_folder, user, user_folder)


def _named(what: str, found: Mapping[str, V], name: str) -> V:
    try:
        return found[name]
    except KeyError:
        raise KubeconfigError(f"kubeconfig: there is no {what} of the name {name}", hint=_HINT) from None


def existing(paths: str) -> tuple[Path, ...]:
    """The files that exist of a list as $KUBECONFIG holds it."""
    files = (Path(path).expanduser() for path in paths.split(os.pathsep) if path)
    return tuple(path for path in files if path.is_file())


def read_kubeconfig(files: Iterable[Path]) -> Kubeconfig:
    """What the files say together. Raises KubeconfigError, which never quotes them: they hold keys."""
    clusters: dict[str, tuple[Cluster, Path]] = {}
    users: dict[str, tuple[User, Path]] = {}
    contexts: dict[str, Context] = {}
    current = ""
    for path in files:
        content = _read(path)
        folder = path.parent
        for cluster in content.clusters or ():
            clusters.setdefault(cluster.name, (cluster.cluster or Cluster(), folder))
        for user in content.users or ():
            users.setdefault(user.name, (user.user or User(), folder))
        for context in content.contexts or ():
            contexts.setdefault(context.name, context.context or Context())
        current = current or content.current_context or ""
    return Kubeconfig(clusters, users, contexts, current)


def _read(path: Path) -> _File:
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506 - both loaders are safe ones
        return msgspec.convert(content or {}, _File)
    except msgspec.ValidationError as error:
        # Names the field and the types, not the value.
        raise KubeconfigError(f"kubeconfig {path}: {error}", hint=_HINT) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise KubeconfigError(f"kubeconfig {path}{where}: not YAML", hint=_HINT) from None
    except (OSError, ValueError) as error:
        detail = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise KubeconfigError(f"kubeconfig {path}: {detail}", hint=_HINT) from None
