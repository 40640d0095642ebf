"""A few pods with real Envoys, a discovery of their own, and the objects that describe them."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography import x509

from discovery import listeners
from discovery.resources import LISTENER
from tests.discovery.certificates import ControlPlaneAuthority
from tests.discovery.live import Discovery
from tests.discovery.network import ROUTER, Router
from tests.discovery.objects import identity, pod
from tests.proxy.certificates import Leaf, swap_identity
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


# Production waits 50 ms for a client's first bytes, and takes what is later for bytes of no protocol. Here the client
# is a thread of the test that may be held up for longer.
_DETECTION_S = 2.0


@contextmanager
def gathered(folder: Path) -> Iterator[Fleet]:
    """A fleet for one test."""
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        patch.setattr(listeners, "DETECTION_S", _DETECTION_S)
        yield Fleet(folder, stack)


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
        """Gives a pod its identity files, of another account if `account` says so; in use on return."""
        self.give(member, self.authority.leaf(identity(account or member.account)))

    def give(self, member: Member, leaf: Leaf) -> None:
        """Gives a pod these files, and waits until its proxy shows them: it learns of them by inotify.

        Everybody's roots stay this fleet's, so that the leaf alone is another one.
        """
        swap_identity(member.proxy.identity, {**leaf.files(), "ca.crt": self.authority.pem})
        if member.proxy.running:
            eventually(lambda: self._shown(member) == leaf.serial, what="the new leaf is shown")

    def _shown(self, member: Member) -> int:
        """The serial number of the leaf that the proxy serves on 15108."""
        # Of no root, as it may be a stranger's; a name is needed to be let in at all, and nobody listens on that port.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["autotls-tcp"])
        plain = self.router.network.connect(member.address, 15108)
        with plain, context.wrap_socket(plain, server_hostname="1") as connection:
            shown = connection.getpeercert(binary_form=True)
        assert shown
        return x509.load_der_x509_certificate(shown).serial_number

    def configured(self, member: Member) -> None:
        """Waits until the member's proxy holds every listener that discovery has."""

        def complete() -> bool:
            state = self.discovery.state
            assert state is not None
            wanted = member.static_listeners + state.catalog.size()[LISTENER]
            return member.proxy.metric("envoy_listener_manager_total_listeners_active") == wanted

        eventually(complete, what=f"configured; log: {member.proxy.log()[-2000:]}")
