"""Fixtures of the tests on the real cluster: namespaces by the label that matters."""

from collections.abc import Iterator

import pytest

from tests.cluster.kubectl import OPTED_IN, Space, space
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
