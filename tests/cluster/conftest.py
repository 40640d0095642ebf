"""Fixtures of the tests on the real cluster: namespaces by the label that matters."""

from collections.abc import Iterator

import pytest

from tests.cluster.kubectl import OPTED_IN, Space, space
from tests.cluster.meshed import Mesh, meshed, undisturbed
from tests.fixtures_cluster import RunningCluster


@pytest.fixture
def shop(cluster: RunningCluster) -> Iterator[Space]:
    """A namespace that opted in."""
    with space(cluster, "shop", labels=OPTED_IN) as made:
        yield made


@pytest.fixture
def outside(cluster: RunningCluster) -> Iterator[Space]:
    """A namespace that did not."""
    with space(cluster, "outside") as made:
        yield made


@pytest.fixture(scope="module")
def mesh(cluster: RunningCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    """Two pods whose requests go on while a module's tests last."""
    with meshed(cluster, tmp_path_factory.mktemp("mesh")) as made:
        yield made


@pytest.fixture
def steady(mesh: Mesh) -> Iterator[None]:
    """The control plane is healthy before and after a test, and no request was lost in between."""
    with undisturbed(mesh):
        yield
