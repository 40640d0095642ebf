"""Views of a cluster for tests of the application."""

from collections.abc import Callable, Sequence

from mesh.kubelet import KubeletVersion
from mesh.pod import Namespace


class FakeCluster:
    """`known` is mirrored; `readable` is there but not mirrored yet; everything else cannot be read."""

    def __init__(
        self,
        known: Sequence[Namespace] = (),
        readable: Sequence[Namespace] = (),
        *,
        oldest_kubelet: KubeletVersion | None = None,
        on_lookup: Callable[[], None] | None = None,
    ) -> None:
        self._known = {space.metadata.name: space for space in known}
        self._readable = {space.metadata.name: space for space in readable}
        self._on_lookup = on_lookup
        self._oldest = oldest_kubelet
        self.reads: list[tuple[str, float]] = []

    @property
    def oldest_kubelet(self) -> KubeletVersion | None:
        return self._oldest

    def namespace(self, name: str) -> Namespace | None:
        if self._on_lookup:
            self._on_lookup()
        return self._known.get(name)

    async def read_namespace(self, name: str, *, timeout_s: float) -> Namespace | None:
        self.reads.append((name, timeout_s))
        return self._readable.get(name)
