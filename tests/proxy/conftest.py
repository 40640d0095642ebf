"""Fixtures of the data plane's tests: real Envoy in network namespaces made for one test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.proxy.certificates import Authority
from tests.proxy.namespaces import Network, two_networks
from tests.proxy.pod import ENVOY, Pod


@pytest.fixture
def networks() -> Iterator[tuple[Network, Network]]:
    with two_networks() as pair:
        yield pair


@pytest.fixture
def server(networks: tuple[Network, Network]) -> Network:
    """The network of the pod under test."""
    return networks[0]


@pytest.fixture
def client(networks: tuple[Network, Network]) -> Network:
    """The network of whoever talks to it."""
    return networks[1]


@pytest.fixture
def make_pod(server: Network, tmp_path: Path) -> Iterator[Callable[..., Pod]]:
    """Makes pods in the server's network; what they started ends with the test."""
    with ExitStack() as stack:
        count = 0

        def make(network: Network = server, envoy: Path = ENVOY, **settings: str) -> Pod:
            nonlocal count
            count += 1
            return stack.enter_context(Pod(network, tmp_path / f"pod{count}", settings, envoy=envoy))

        yield make


@pytest.fixture(scope="session")
def authority() -> Authority:
    return Authority()
