"""A namespace whose two pods talk all the time while something fails."""

from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mesh import names
from tests.cluster.kubectl import OPTED_IN, Object, Space, eventually, is_ready, space, statuses_of, tell
from tests.cluster.machine import Machine, Watch, watching
from tests.cluster.plane import Plane, a_pod, an_account, save_identity
from tests.fixtures_cluster import RunningCluster


@dataclass(frozen=True, slots=True)
class Mesh:
    """A namespace with a server and a client whose requests go on all the time."""

    space: Space
    plane: Plane
    machine: Machine
    peer: Path
    """The client's identity."""
    plaintext: Watch
    mutual: Watch

    def get(self, pod: str) -> Object:
        return self.space.get("pod", pod)

    def secret(self, account: str) -> Object | None:
        return self.space.find("secret", names.identity_secret_name(account))

    def start(self, name: str, account: str) -> Object:
        """A pod, once it is Ready."""
        self.space.apply(a_pod(self.space.cluster, name, account))
        return self.space.wait_ready(name)[0]

    def dial(self, pod: Object, port: int = names.INBOUND_TLS_PORT) -> dict[str, Any]:
        identity = str(self.peer) if port == names.INBOUND_TLS_PORT else None
        return self.machine.call({"address": pod["status"]["podIP"], "port": port, "identity": identity})[0]

    def wait_served(self, pod: Object) -> None:
        """Peers reach the pod by mutual TLS, and it is the ServiceAccount it should be."""
        told: list[dict[str, Any]] = []
        wanted = f"spiffe://cluster.local/ns/{self.space.name}/sa/{pod['spec']['serviceAccountName']}"

        def served() -> bool:
            told[:] = [self.dial(pod)]
            return told[0].get("status") == 200 and told[0]["peer"] == wanted

        eventually(served, lambda: f"{pod['metadata']['name']} by mutual TLS: {told}")


@contextmanager
def meshed(cluster: RunningCluster, folder: Path) -> Generator[Mesh]:
    """Two pods, a client and a server, and requests that go on in plaintext from the one to the other and by mutual TLS
    from a peer on the node."""
    plane, machine = Plane(cluster), Machine(cluster)
    plane.wait_healthy()
    with ExitStack() as stack:
        home = stack.enter_context(space(cluster, "faults", labels=OPTED_IN))
        service = {"selector": {"app": "server"}, "ports": [{"port": 80, "targetPort": 8080}]}
        home.apply(
            *map(an_account, ("server", "client")),
            {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "server"}, "spec": service},
        )
        secret = eventually(lambda: home.find("secret", names.identity_secret_name("client")), "the client's identity")
        peer = save_identity(secret, folder / "client")
        home.apply(a_pod(cluster, "server", "server", labels={"app": "server"}), a_pod(cluster, "client", "client"))
        server, client = home.wait_ready("server", "client")
        address = home.get("service", "server")["spec"]["clusterIP"]
        own = ("nsenter", f"--net=/proc/{machine.process_of(client, 'app')}/ns/net")
        plain = {"address": address, "port": 80}
        mutual = {"address": server["status"]["podIP"], "port": names.INBOUND_TLS_PORT, "identity": str(peer)}
        found = Mesh(home, plane, machine, peer, Watch(folder / "plaintext"), Watch(folder / "mutual"))
        found.wait_served(server)
        stack.enter_context(watching(own, plain, folder / "plaintext"))
        stack.enter_context(watching(cluster.enter_network, mutual, folder / "mutual"))
        yield found


@contextmanager
def undisturbed(mesh: Mesh) -> Generator[None]:
    """Healthy before and after, and no request was lost in between."""
    mesh.plane.wait_healthy()
    before = len(mesh.plaintext.failures()), len(mesh.mutual.failures())
    yield
    mesh.plane.wait_healthy()
    for watch, count in zip((mesh.plaintext, mesh.mutual), before, strict=True):
        watch.wait_for_more()
        assert watch.failures()[count:] == []
    for name in ("server", "client"):
        pod = mesh.get(name)
        assert is_ready(pod), tell(pod)
        assert restarts(pod) == 0


def restarts(pod: Object) -> int:
    return sum(status["restartCount"] for status in statuses_of(pod).values())
