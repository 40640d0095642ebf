"""The one configuration file."""

from datetime import timedelta

import pytest

from mesh.config import ConfigError, MeshConfig, parse_config, parse_duration


def test_an_empty_object_is_the_defaults() -> None:
    assert parse_config(b"{}") == MeshConfig()


def test_names_are_camel_case() -> None:
    config = parse_config(b"trustDomain: example.org\nproxy: {logLevel: debug, resources: {cpuRequest: 20m}}\n")
    assert config.trust_domain == "example.org"
    assert config.proxy.log_level == "debug"
    assert config.proxy.resources.cpu_request == "20m"
    assert config.proxy.resources.memory_request == "48Mi"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("trustdomain: x", "trustdomain"),
        ("proxy: {loglevel: debug}", "loglevel"),
        ("proxy: {logLevel: loud}", r"\$\.proxy\.logLevel"),
        ("proxy: {waitSeconds: 3}", r"\$\.proxy\.waitSeconds"),
        ("mode: both", r"\$\.mode"),
        ("trustDomain: UPPER", "trustDomain"),
        ("identity: {leafLifetime: 1y}", "identity.leafLifetime|identity.leaf_lifetime"),
        ("identity: {leafLifetime: 400d}", "must grow"),
        ("lease: {duration: 1s}", "must grow"),
        ("[]", "configuration"),
        ("a: b: c", "configuration"),
    ],
)
def test_what_is_wrong_is_named(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse_config(text.encode())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("24h", timedelta(hours=24)),
        ("1h30m", timedelta(minutes=90)),
        ("500ms", timedelta(milliseconds=500)),
        ("365d", timedelta(days=365)),
        ("0s", timedelta()),
    ],
)
def test_durations(text: str, expected: timedelta) -> None:
    assert parse_duration(text) == expected


@pytest.mark.parametrize("text", ["", "5", "h", "1 h", "1.5h", "-1h", "1h ", "1w"])
def test_other_text_is_no_duration(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_duration(text)
