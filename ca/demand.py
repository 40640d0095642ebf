"""Who needs an identity, kept up to date change by change. Pure: fed by reflectors, asks nobody.

An identity is wanted for every ServiceAccount of a namespace that opted in, and for the ServiceAccount of every pod
that is injected or asks to be. It is removed when no live pod uses it and its ServiceAccount is gone or its namespace
opted out (design section 5). In between lies an identity that no pod uses in a namespace without a label, as a
CronJob that opts in by itself leaves it: it stays until it would have to be renewed, and is then removed instead.
"""

from collections import defaultdict
from dataclasses import dataclass
from enum import Enum

from mesh import names
from mesh.config import MeshConfig
from mesh.pod import Namespace, Pod


@dataclass(frozen=True, slots=True, order=True)
class Account:
    """A ServiceAccount, whether it exists or not."""

    namespace: str
    name: str


class Need(Enum):
    """What an identity is needed for."""

    WANTED = "wanted"
    IDLE = "idle"
    NONE = "none"


class Demand:
    """The needs of a cluster. Each method that changes them gives back the accounts to look at again; the change
    is done when the method returns, whether or not anybody looks."""

    def __init__(self, config: MeshConfig) -> None:
        self._excluded = names.SYSTEM_NAMESPACES | {*config.excluded_namespaces, config.control_plane_namespace}
        self._opted_in: set[str] = set()
        self._opted_out: set[str] = set()
        self._accounts: defaultdict[str, set[str]] = defaultdict(set)
        self._pods: dict[str, Account] = {}
        self._users: defaultdict[Account, set[str]] = defaultdict(set)

    def namespace_changed(self, name: str, namespace: Namespace | None) -> tuple[Account, ...]:
        """The accounts of a namespace whose label changed; nothing when it did not."""
        label = namespace.metadata.label(names.INJECT_LABEL) if namespace else None
        if namespace and namespace.metadata.deletion_timestamp:
            label = None  # everything in it is going away, and creating is refused
        before = (name in self._opted_in, name in self._opted_out)
        _set(self._opted_in, name, label == names.INJECT_ENABLED and name not in self._excluded)
        _set(self._opted_out, name, label == names.INJECT_DISABLED or name in self._excluded)
        if before != (name in self._opted_in, name in self._opted_out):
            return self.accounts_of(name)
        return ()

    def account_changed(self, account: Account, *, exists: bool) -> tuple[Account, ...]:
        _set(self._accounts[account.namespace], account.name, exists)
        return (account,)

    def pod_changed(self, key: str, pod: Pod | None) -> tuple[Account, ...]:
        """The accounts that a pod begins or ends to use."""
        before = self._pods.pop(key, None)
        after = self._used_by(pod) if pod else None
        if after is not None:
            self._pods[key] = after
            self._users[after].add(key)
        if before == after:
            return ()
        if before is not None:
            self._users[before].discard(key)
            if not self._users[before]:
                del self._users[before]
        return tuple(account for account in (before, after) if account is not None)

    def accounts_of(self, namespace: str) -> tuple[Account, ...]:
        """Every account of a namespace that exists or is used there."""
        used = {account.name for account in self._users if account.namespace == namespace}
        return tuple(Account(namespace, name) for name in sorted(used | self._accounts.get(namespace, set())))

    def accounts(self) -> set[Account]:
        """Every account that something speaks for."""
        opted_in = {Account(namespace, name) for namespace in self._opted_in for name in self._accounts[namespace]}
        return opted_in | self._users.keys()

    def used(self, account: Account) -> bool:
        """True while a pod that is injected or asks to be runs as this account."""
        return account in self._users

    def need(self, account: Account) -> Need:
        exists = account.name in self._accounts.get(account.namespace, ())
        if account in self._users or (exists and account.namespace in self._opted_in):
            return Need.WANTED
        return Need.IDLE if exists and account.namespace not in self._opted_out else Need.NONE

    def _used_by(self, pod: Pod) -> Account | None:
        if pod.finished or pod.metadata.namespace in self._excluded:
            return None
        asks = pod.metadata.label(names.INJECT_LABEL)
        carries = pod.metadata.label(names.MESH_LABEL) is not None or has_sidecar(pod)
        if not carries and asks != names.INJECT_ENABLED:
            return None
        return Account(pod.metadata.namespace, pod.spec.service_account)


def has_sidecar(pod: Pod) -> bool:
    """True for a pod that carries our proxy; the label alone can be written by anybody."""
    return any(container.name == names.PROXY_CONTAINER for container in pod.spec.init_containers or ())


def _set(members: set[str], name: str, present: bool) -> None:
    if present:
        members.add(name)
    else:
        members.discard(name)
