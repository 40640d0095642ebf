"""Which ports of a pod its peers may reach through 15108."""

from collections.abc import Iterable

from discovery.snapshot import PodFacts, Target
from mesh import names


def reachable_ports(pod: PodFacts, targets: Iterable[Target]) -> tuple[int, ...]:
    """Container ports that the pod declares and ports that a Service sends to it; nothing of ours, ever.

    An undeclared port that no Service names stays closed: without this, a port meant for the pod's own loopback
    neighbours would be open to every identity of the mesh.
    """
    ports = {port for port, _ in pod.ports}
    ports.update(target.port for target in targets if target.address in pod.addresses)
    return tuple(sorted(port for port in ports if port not in names.RESERVED_PORTS))
