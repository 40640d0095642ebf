"""autotls-init: the rules it writes, and what it does when it cannot."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from tests.proxy.namespaces import Network
from tests.proxy.pod import Pod

pytestmark = pytest.mark.envoy


def rules(network: Network) -> str:
    """The ruleset of that network without its counts."""
    return re.sub(r"packets \d+ bytes \d+", "", network.run("nft", "list", "ruleset").stdout)


@pytest.mark.parametrize("inbound", ["direct", "observed"])
def test_twice_equals_once(make_pod: Callable[..., Pod], server: Network, inbound: str) -> None:
    pod = make_pod(AUTOTLS_INBOUND=inbound, AUTOTLS_SKIP_OUTBOUND_PORTS="80,443,80-90", AUTOTLS_SKIP_INBOUND_PORTS="22")
    assert pod.init().returncode == 0
    once = rules(server)
    assert "redirect to :15101" in once
    assert ("redirect to :15106" in once) == (inbound == "observed")
    assert pod.init().returncode == 0
    assert rules(server) == once


def test_new_settings_replace_the_old_rules(make_pod: Callable[..., Pod], server: Network) -> None:
    make_pod(AUTOTLS_INBOUND="observed", AUTOTLS_SKIP_OUTBOUND_PORTS="81").init()
    make_pod(AUTOTLS_SKIP_OUTBOUND_PORTS="82").init()
    written = rules(server)
    assert "dport 82 return" in written
    assert "dport 81" not in written
    assert "15106" not in written


def test_other_tables_are_left_alone(make_pod: Callable[..., Pod], server: Network) -> None:
    server.run("nft", "add table inet other; add chain inet other c { type filter hook input priority 0; }")
    make_pod().init()
    make_pod().init()
    assert "table inet other" in rules(server)


def test_redirect_off_writes_nothing(make_pod: Callable[..., Pod], server: Network) -> None:
    assert make_pod(AUTOTLS_REDIRECT="off").init().returncode == 0
    assert rules(server) == ""


def test_without_the_capability_optional_goes_on_and_says_so(make_pod: Callable[..., Pod], server: Network) -> None:
    pod = make_pod()
    done = pod.init_without_privileges()
    assert done.returncode == 0
    assert "level=warning" in done.stderr
    assert "redirect_failed" in done.stderr
    assert "Operation not permitted" in pod.message.read_text()
    assert rules(server) == ""


def test_without_the_capability_strict_fails(make_pod: Callable[..., Pod], server: Network) -> None:
    pod = make_pod(AUTOTLS_MODE="strict")
    assert pod.init_without_privileges().returncode == 1
    assert "redirect_failed" in pod.message.read_text()
    assert rules(server) == ""


def test_success_is_the_termination_message_too(make_pod: Callable[..., Pod]) -> None:
    pod = make_pod()
    pod.init()
    assert pod.message.read_text().startswith("redirect_written")


def test_a_pod_without_ipv6_gets_rules_and_listeners_for_ipv4_alone(
    make_pod: Callable[..., Pod], server: Network
) -> None:
    server.run("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1")
    pod = make_pod(AUTOTLS_INBOUND="observed")
    assert pod.init().returncode == 0
    assert "meta nfproto ipv4" in rules(server)
    pod.start()
    assert "_v6" not in (pod.run_folder / "envoy.yaml").read_text()
