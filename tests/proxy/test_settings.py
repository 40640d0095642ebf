"""settings.sh: every value is checked before it is used."""

from __future__ import annotations

import subprocess

import pytest

from tests.proxy.pod import REPOSITORY

PRINT = """. proxy/settings.sh; read_settings
printf '%s|' "$mode" "$inbound" "$redirect" "$log_level" "$trust_domain" "$pod_name" "$service_account" \
  "$wait_seconds" "$drain_seconds" "$skip_inbound" "$skip_outbound"
"""
DEFAULTS = "optional|direct|on|warning|cluster.local|unknown|default|2|5|||"


def read(**environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-u", "-c", PRINT], cwd=REPOSITORY, env={"PATH": "/usr/bin:/bin", **environment},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_nothing_set_gives_the_defaults_without_a_word() -> None:
    done = read()
    assert (done.stdout, done.stderr) == (DEFAULTS, "")


def test_allowed_values_are_taken() -> None:
    done = read(
        AUTOTLS_MODE="strict", AUTOTLS_INBOUND="observed", AUTOTLS_REDIRECT="off", AUTOTLS_LOG_LEVEL="debug",
        AUTOTLS_TRUST_DOMAIN="prod.example_1-a", AUTOTLS_POD_NAME="web-0.x", AUTOTLS_SERVICE_ACCOUNT="a",
        AUTOTLS_WAIT_SECONDS="300", AUTOTLS_DRAIN_SECONDS="0", AUTOTLS_SKIP_INBOUND_PORTS="1-65535",
        AUTOTLS_SKIP_OUTBOUND_PORTS="80,443,8000-8100",
    )  # fmt: skip
    assert done.stdout == "strict|observed|off|debug|prod.example_1-a|web-0.x|a|300|0|1-65535|80,443,8000-8100|"
    assert done.stderr == ""


BAD = [
    ("AUTOTLS_MODE", "Strict"), ("AUTOTLS_INBOUND", "both"), ("AUTOTLS_REDIRECT", "yes"),
    ("AUTOTLS_LOG_LEVEL", "loud"), ("AUTOTLS_LOG_LEVEL", "info\ntrace"),
    ("AUTOTLS_TRUST_DOMAIN", 'a"}}, {san_type: DNS'), ("AUTOTLS_TRUST_DOMAIN", "a\nb"), ("AUTOTLS_TRUST_DOMAIN", "A.b"),
    ("AUTOTLS_TRUST_DOMAIN", "a" * 256), ("AUTOTLS_POD_NAME", "$(id)"), ("AUTOTLS_POD_NAME", "-x"),
    ("AUTOTLS_SERVICE_ACCOUNT", "&"), ("AUTOTLS_WAIT_SECONDS", "3"), ("AUTOTLS_WAIT_SECONDS", "1.5"),
    ("AUTOTLS_WAIT_SECONDS", "010"), ("AUTOTLS_WAIT_SECONDS", "a[$(id)]"), ("AUTOTLS_DRAIN_SECONDS", "3601"),
    ("AUTOTLS_CONTROL_PLANE_NAMESPACE", "Mesh"), ("AUTOTLS_DISCOVERY_ADDRESS", "discovery"),
    ("AUTOTLS_DISCOVERY_ADDRESS", 'x"}:1'), ("AUTOTLS_DISCOVERY_ADDRESS", "fd00::1:15110"), ("AUTOTLS_PORTS", "http"),
    ("AUTOTLS_SKIP_INBOUND_PORTS", "0"), ("AUTOTLS_SKIP_INBOUND_PORTS", "65536"),
    ("AUTOTLS_SKIP_INBOUND_PORTS", "1,,2"),
    ("AUTOTLS_SKIP_OUTBOUND_PORTS", "90-80"), ("AUTOTLS_SKIP_OUTBOUND_PORTS", "80-"),
    ("AUTOTLS_SKIP_OUTBOUND_PORTS", "80-90-99"), ("AUTOTLS_SKIP_OUTBOUND_PORTS", "80 return; flush ruleset"),
    ("AUTOTLS_SKIP_OUTBOUND_PORTS", "080"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("environment", "address"),
    [
        ({}, "autotls-discovery.autotls.svc.cluster.local:15110"),
        ({"AUTOTLS_CONTROL_PLANE_NAMESPACE": "mesh"}, "autotls-discovery.mesh.svc.cluster.local:15110"),
        ({"AUTOTLS_DISCOVERY_ADDRESS": "10.0.0.1:1"}, "10.0.0.1:1"),
        ({"AUTOTLS_DISCOVERY_ADDRESS": "[fd00::1]:15110"}, "[fd00::1]:15110"),
    ],
)
def test_discovery_is_found_by_its_service_unless_told_otherwise(environment: dict[str, str], address: str) -> None:
    done = subprocess.run(
        ["bash", "-u", "-c", '. proxy/settings.sh; read_settings; echo "$discovery_address"'], cwd=REPOSITORY,
        env={"PATH": "/usr/bin:/bin", **environment}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == (f"{address}\n", "")


@pytest.mark.parametrize(("name", "value"), BAD)
def test_optional_says_what_is_wrong_and_takes_the_default(name: str, value: str) -> None:
    done = read(**{name: value})
    assert done.returncode == 0
    assert done.stdout == DEFAULTS
    (line,) = done.stderr.splitlines()
    assert f"event=setting_ignored name={name} value=" in line
    assert "allowed='" in line


@pytest.mark.parametrize(("name", "value"), [bad for bad in BAD if bad[0] != "AUTOTLS_MODE" and bad[1] != "3"])
def test_strict_refuses_to_start(name: str, value: str) -> None:
    done = read(AUTOTLS_MODE="strict", **{name: value})
    assert done.returncode == 64
    (line,) = done.stderr.splitlines()
    assert f"event=setting_refused name={name} value=" in line
