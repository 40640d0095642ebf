"""A few pods with real Envoys, a discovery of their own, and the objects that describe them."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from discovery.resources import LISTENER
from tests.discovery.certificates import ControlPlaneAuthority
from tests.discovery.live import Discovery
from tests.discovery.network import ROUTER, Router
from tests.discovery.objects import identity, pod
from tests.proxy.certificates import swap_identity
from tests.proxy.namespaces import App, Network, eventually
from tests.proxy.pod import REPOSITORY
from tests.proxy.pod import Pod as Sidecar


@dataclass
class Member:
    """One pod: its network, its proxy if it has one, its apps."""

    name: str
    account: str
    network: Network
    sidecar: Sidecar | None
    apps: list[App] = field(default_factory=list)
    # Those of the bootstrap, counted before discovery had a say.
    static_listeners: int = 0

    @property
    def address(self) -> str:
        return self.network.ipv4

    @property
    def proxy(self) -> Sidecar:
        assert self.sidecar is not None
        return self.sidecar

    def http(self, port: int = 8080) -> App:
        self.apps.append(App(self.network, self.address, port, http=True))
        return self.apps[-1]

    def echo(self, port: int, greeting: bytes = b"") -> App:
        self.apps.append(App(self.network, self.address, port, greeting=greeting))
        return self.apps[-1]

    def outbound(self, service: str, **labels: str) -> float:
        """How many requests or connections this pod's proxy sent to `service`."""
        return self.proxy.metric("envoy_autotls_rq", dir="outbound", svc=service, **labels)


class Fleet:
    """Everything ends with the stack."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder, self._stack = folder, stack
        self.members: dict[str, Member] = {}
        self.authority = ControlPlaneAuthority()
        self.router = Router()
        stack.callback(self.router.close)
        certificates = folder / "discovery"
        certificates.mkdir()
        swap_identity(certificates, self.authority.server().files())
        self.discovery = Discovery(self.router.network, certificates)
        stack.callback(self.discovery.stop)

    def member(
        self,
        name: str,
        account: str,
        *,
        meshed: bool = True,
        files: bool = True,
        start: bool = True,
        proxy: Path = REPOSITORY / "proxy",
        **settings: str,
    ) -> Member:
        """A pod; `files` False: its identity has not come yet. `settings` are the proxy's environment, `proxy` the
        folder of its scripts and bootstrap."""
        network = self.router.pod()
        sidecar = None
        if meshed:
            environment = {
                "AUTOTLS_POD_NAME": name,
                "AUTOTLS_POD_NAMESPACE": "shop",
                "AUTOTLS_SERVICE_ACCOUNT": account,
                "AUTOTLS_DISCOVERY_ADDRESS": f"{ROUTER}:15110",
                **settings,
            }
            sidecar = Sidecar(network, self._folder / name, environment, proxy=proxy)
            self._stack.enter_context(sidecar)
            if files:
                swap_identity(sidecar.identity, self.authority.leaf(identity(account)).files())
            if start:
                sidecar.init()
                sidecar.start()
        member = self.members[name] = Member(name, account, network, sidecar)
        if sidecar and start:
            member.static_listeners = int(sidecar.metric("envoy_listener_manager_total_listeners_active"))
        self._stack.callback(lambda: [app.__exit__() for app in member.apps])
        return member

    def announce(self, *members: Member, meshed: bool | None = None, ports: tuple[int, ...] = (8080,)) -> None:
        """Tells discovery about pods."""
        self.discovery.put(
            *(
                pod(
                    member.name,
                    member.address,
                    service_account=member.account,
                    meshed=member.sidecar is not None if meshed is None else meshed,
                    ports=ports,
                )
                for member in members
            )
        )

    def identify(self, member: Member, account: str | None = None) -> None:
        """Gives a pod its identity files, of another account if `account` says so."""
        swap_identity(member.proxy.identity, self.authority.leaf(identity(account or member.account)).files())

    def configured(self, member: Member) -> None:
        """Waits until the member's proxy holds every listener that discovery has."""

        def complete() -> bool:
            state = self.discovery.state
            assert state is not None
            wanted = member.static_listeners + state.catalog.size()[LISTENER]
            return member.proxy.metric("envoy_listener_manager_total_listeners_active") == wanted

        eventually(complete, within_s=30, what=f"configured; log: {member.proxy.log()[-2000:]}")
