"""What the CA mirrors of the cluster, and which work each change makes."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Protocol

from ca.demand import Account, Demand
from ca.edge import Edge
from ca.secret import TLS_TYPE, OwnSecret, service_account_of
from kube import kinds
from kube.kinds import ConfigMap, MutatingWebhookConfiguration, ServiceAccount, collection_path
from kube.reflector import Reflector
from mesh import names
from mesh.pod import Namespace, Pod


@dataclass(frozen=True, slots=True)
class BundleOf:
    """The trust bundle of a namespace."""

    namespace: str


@dataclass(frozen=True, slots=True)
class ServingOf:
    """A serving certificate of the control plane; one of names.SERVING_SECRETS."""

    secret: str


class Task(Enum):
    """Work that there is once per installation."""

    TRUST = "trust"
    REGISTRATIONS = "registrations"


Key = Account | BundleOf | ServingOf | Task


class Add(Protocol):
    """Takes a key that there is work for; `first`: a pod waits for it."""

    def __call__(self, key: Key, *, first: bool = False) -> None: ...


_AUTHORITIES: Final = frozenset({names.ROOT_SECRET, names.ISSUER_SECRET})


class Mirror:
    """The reflectors of one term of leadership. `add` gets the keys that a change makes work for; `known` says
    whether a version of an identity Secret is our own echo; `pod_seen` hears of every pod."""

    def __init__(
        self,
        edge: Edge,
        demand: Demand,
        *,
        add: Add,
        known: Callable[[Account, str], bool],
        pod_seen: Callable[[str, Pod | None], None],
        jitter: Callable[[], float],
    ) -> None:
        self._edge, self._demand = edge, demand
        self._add, self._known, self._pod_seen = add, known, pod_seen
        api, own, home = edge.api, edge.owner.selector, edge.namespace
        self._accounts_by_secret: dict[str, Account] = {}
        self._inhabitants: dict[str, set[str]] = {}
        self._namespaces = Reflector(api, kinds.NAMESPACES, Namespace, on_change=self._namespace_changed, jitter=jitter)
        self._accounts = Reflector(
            api, kinds.SERVICE_ACCOUNTS, ServiceAccount, on_change=self._account_changed, jitter=jitter
        )
        self._pods = Reflector(api, kinds.PODS, Pod, on_change=self._pod_changed, jitter=jitter)
        self._secrets = Reflector(
            api, kinds.SECRETS, OwnSecret, on_change=self._secret_changed, label_selector=own, jitter=jitter
        )
        self._bundles = Reflector(
            api, kinds.CONFIG_MAPS, ConfigMap, on_change=self._bundle_changed, label_selector=own, jitter=jitter
        )
        # By type and not by label: cert-manager's Secrets, and ours after somebody took the labels off.
        self._home_secrets = Reflector(
            api,
            collection_path("v1", "secrets", home),
            OwnSecret,
            on_change=self._home_secret_changed,
            field_selector=f"type={TLS_TYPE}",
            jitter=jitter,
        )
        self._templates = Reflector(
            api,
            collection_path("v1", "configmaps", home),
            ConfigMap,
            on_change=self._registration_changed,
            field_selector=f"metadata.name={names.STRICT_REGISTRATION_TEMPLATE}",
            jitter=jitter,
        )
        self._registrations = Reflector(
            api,
            kinds.MUTATING_WEBHOOK_CONFIGURATIONS,
            MutatingWebhookConfiguration,
            on_change=self._registration_changed,
            jitter=jitter,
        )

    @property
    def secrets(self) -> Mapping[str, OwnSecret]:
        return self._secrets.store

    @property
    def home_secrets(self) -> Mapping[str, OwnSecret]:
        return self._home_secrets.store

    @property
    def bundles(self) -> Mapping[str, ConfigMap]:
        return self._bundles.store

    @property
    def templates(self) -> Mapping[str, ConfigMap]:
        return self._templates.store

    @property
    def registrations(self) -> Mapping[str, MutatingWebhookConfiguration]:
        return self._registrations.store

    @property
    def namespaces(self) -> Mapping[str, Namespace]:
        return self._namespaces.store

    def inhabited(self, namespace: str) -> bool:
        """True when the namespace is there and holds an identity."""
        return bool(self._inhabitants.get(namespace)) and namespace in self._namespaces.store

    def going(self, namespace: str) -> bool:
        """True when the namespace is being deleted, with all that is in it."""
        found = self._namespaces.store.get(namespace)
        return found is not None and found.metadata.deletion_timestamp is not None

    @property
    def reflectors(self) -> dict[str, Reflector[Any]]:
        """By name, for tasks."""
        return {
            "namespaces": self._namespaces,
            "service-accounts": self._accounts,
            "pods": self._pods,
            "secrets": self._secrets,
            "bundles": self._bundles,
            "home-secrets": self._home_secrets,
            "templates": self._templates,
            "registrations": self._registrations,
        }

    async def synced(self) -> None:
        """Returns when every mirror has been filled once."""
        await asyncio.gather(*(reflector.synced.wait() for reflector in self.reflectors.values()))

    def add_everything(self) -> None:
        """After a change of trust, and at the start."""
        self._add_all(tuple({*self._accounts_by_secret.values(), *self._demand.accounts()}))
        for namespace in {*self._inhabitants, *(key.partition("/")[0] for key in self._bundles.store)}:
            self._add(BundleOf(namespace))
        for key in (*map(ServingOf, names.SERVING_SECRETS), *Task):
            self._add(key)

    def _namespace_changed(self, key: str, namespace: Namespace | None) -> None:
        self._add_all(self._demand.namespace_changed(key, namespace))
        if self._inhabitants.get(key):
            self._add(BundleOf(key))

    def _account_changed(self, key: str, account: ServiceAccount | None) -> None:
        namespace, _, name = key.partition("/")
        self._add_all(self._demand.account_changed(Account(namespace, name), exists=account is not None))

    def _pod_changed(self, key: str, pod: Pod | None) -> None:
        self._add_all(self._demand.pod_changed(key, pod))
        self._pod_seen(key, pod)

    def _secret_changed(self, key: str, secret: OwnSecret | None) -> None:
        namespace, _, _ = key.partition("/")
        name = service_account_of(secret.metadata) if secret else None
        account = Account(namespace, name) if name else self._accounts_by_secret.get(key)
        if account is None:
            return
        dwellers = self._inhabitants.setdefault(namespace, set())
        was_inhabited = bool(dwellers)
        if secret is None:
            self._accounts_by_secret.pop(key, None)
            dwellers.discard(key)
        else:
            self._accounts_by_secret[key] = account
            dwellers.add(key)
        if was_inhabited != bool(dwellers):
            self._add(BundleOf(namespace))
        if secret is None or not self._known(account, secret.metadata.resource_version):
            self._add(account)

    def _bundle_changed(self, key: str, _bundle: ConfigMap | None) -> None:
        namespace, _, name = key.partition("/")
        if name == names.TRUST_BUNDLE_CONFIG_MAP:
            self._add(BundleOf(namespace))

    def _home_secret_changed(self, key: str, _secret: OwnSecret | None) -> None:
        _, _, name = key.partition("/")
        if name in _AUTHORITIES:
            self._add(Task.TRUST)
        elif name in names.SERVING_SECRETS:
            self._add(ServingOf(name))

    def _registration_changed(self, _key: str, _changed: object) -> None:
        self._add(Task.REGISTRATIONS)

    def _add_all(self, accounts: tuple[Account, ...]) -> None:
        for account in accounts:
            self._add(account, first=self._is_awaited(account))

    def _is_awaited(self, account: Account) -> bool:
        """True for an identity that is missing while a pod is there to mount it: the kubelet mounts what it finds a
        second after the pod was made, and looks again a minute later."""
        secret = f"{account.namespace}/{names.identity_secret_name(account.name)}"
        return self._demand.used(account) and secret not in self._accounts_by_secret
