"""What a process of the control plane refuses to start with."""

from pathlib import Path

import pytest

from mesh.config import ConfigError
from process.config import configured, load_config, port_of


def test_values_that_no_pod_could_get_are_found_at_the_start(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("proxy: {resources: {cpuRequest: much}}")
    with pytest.raises(ConfigError, match=r"proxy\.resources\.cpuRequest"):
        load_config(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.yaml"):
        load_config(tmp_path / "absent.yaml")


def test_the_defaults_are_a_configuration(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("trustDomain: example.org")
    assert load_config(path).trust_domain == "example.org"


def test_the_file_is_the_one_that_the_environment_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("trustDomain: example.org")
    monkeypatch.setenv("AUTOTLS_CONFIG", str(path))
    assert configured().trust_domain == "example.org"


@pytest.mark.parametrize("text", ["", "x", "-1", "65536", "9090 ", "9e3"])
def test_a_port_that_is_none_is_refused_by_name(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOTLS_HEALTH_PORT", text)
    with pytest.raises(ConfigError, match="AUTOTLS_HEALTH_PORT"):
        port_of("AUTOTLS_HEALTH_PORT", 9090)


def test_a_port_that_is_not_set_has_its_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AUTOTLS_HEALTH_PORT", raising=False)
    assert port_of("AUTOTLS_HEALTH_PORT", 9090) == 9090
