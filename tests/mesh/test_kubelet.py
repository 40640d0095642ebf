"""Kubelet versions, as nodes of real vendors report them; and our own version."""

import tomllib
from pathlib import Path

import pytest

from mesh.kubelet import OLDEST_WITH_NATIVE_SIDECARS, KubeletVersion, KubeletVersionError
from mesh.version import VERSION


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("v1.37.2", (1, 37)),
        ("v1.29.1-gke.1589000", (1, 29)),
        ("v1.30.4-eks-a737599", (1, 30)),
        ("v1.31.5+k3s1", (1, 31)),
        ("1.28", (1, 28)),
    ],
)
def test_version_is_read(text: str, expected: tuple[int, int]) -> None:
    version = KubeletVersion.parse(text)
    assert (version.major, version.minor) == expected


@pytest.mark.parametrize("text", ["", "v1", "latest", "v1.x", "v1.29beta", "v١.29"])
def test_other_text_is_no_version(text: str) -> None:
    with pytest.raises(KubeletVersionError):
        KubeletVersion.parse(text)


def test_minors_compare_as_numbers() -> None:
    assert KubeletVersion(1, 9) < OLDEST_WITH_NATIVE_SIDECARS <= KubeletVersion(1, 29) < KubeletVersion(1, 100)


def test_the_version_written_into_pods_is_the_packages() -> None:
    pyproject = Path(__file__).parents[2] / "pyproject.toml"
    assert tomllib.loads(pyproject.read_text())["project"]["version"] == VERSION
