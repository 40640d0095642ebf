"""What a machine must offer."""

import pytest

from cluster import host
from cluster.errors import HostError


@pytest.mark.parametrize(
    ("platform", "uid", "architecture", "message"),
    [
        ("darwin", 0, "x86_64", "needs Linux, this is darwin"),
        ("linux", 1000, "x86_64", "needs root"),
        ("linux", 0, "riscv64", "not made for riscv64"),
    ],
)
def test_a_machine_that_cannot_is_told_why(platform: str, uid: int, architecture: str, message: str) -> None:
    with pytest.raises(HostError, match=message) as caught:
        host.check_platform(platform=platform, uid=uid, architecture=architecture)
    assert caught.value.hint


def test_a_good_machine_passes() -> None:
    host.check_platform(platform="linux", uid=0, architecture="aarch64")


def test_each_missing_package_is_installed_once() -> None:
    wanted = {"nsenter": "util-linux", "unshare": "util-linux", "runc": "runc", "ip": "iproute2"}
    present = {"ip": "/sbin/ip"}
    assert host.missing_packages(wanted, present.get) == ("util-linux", "runc")


def test_no_way_to_install_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host.shutil, "which", lambda _name: None)
    with pytest.raises(HostError, match="no apt-get to install them: runc"):
        host.install({"runc": "runc"})
