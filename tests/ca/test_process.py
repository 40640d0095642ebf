"""What the CA's process refuses to start with."""

from pathlib import Path

import pytest

from ca.__main__ import load_config
from mesh.config import ConfigError


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
