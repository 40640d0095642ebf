"""What the machine must offer, and what is installed when it is missing."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from cluster.errors import HostError
from cluster.progress import say

APT_PACKAGES: Final = {
    "runc": "runc",
    "nft": "nftables",
    "iptables": "iptables",  # portmap (hostPort) looks for it
    "conntrack": "conntrack",  # the kubelet and kube-proxy check for it
    "ip": "iproute2",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "mount": "mount",
    "sysctl": "procps",
}
"""Program -> Debian package, for the node."""

IMAGE_APT_PACKAGES: Final = {"buildah": "buildah", "debootstrap": "debootstrap"}
"""Only needed where no container engine works."""

TEST_APT_PACKAGES: Final = {
    "openssl": "openssl",
    "curl": "curl",
    "nc": "netcat-openbsd",
    "setpriv": "util-linux",
    "taskset": "util-linux",
    "shellcheck": "shellcheck",
    "chromium": "chromium",
    "prometheus": "prometheus",
    "promtool": "prometheus",
}
"""What the tests and `make lint` call besides the node's own programs."""


def missing_packages(wanted: dict[str, str], which: Callable[[str], str | None]) -> tuple[str, ...]:
    """The packages to install so that every program exists, each once, in order."""
    return tuple(dict.fromkeys(package for program, package in wanted.items() if which(program) is None))


def check_platform(*, platform: str, uid: int, architecture: str) -> None:
    """Raises HostError when no cluster can run here, in one sentence that says why."""
    if platform != "linux":
        raise HostError(
            f"the development cluster needs Linux, this is {platform}", hint="run it in a Linux virtual machine"
        )
    if architecture not in ("x86_64", "aarch64"):
        raise HostError(
            f"the development cluster was not made for {architecture}", hint="use an x86-64 or arm64 machine"
        )
    if uid != 0:
        raise HostError(
            "the development cluster needs root: it makes network namespaces, mounts and cgroups",
            hint="run it again as root, for instance with sudo -E make up",
        )


def prepare() -> None:
    """Check this machine and install missing packages. Raises HostError."""
    check_platform(platform=sys.platform, uid=os.geteuid(), architecture=os.uname().machine)
    if not Path("/sys/fs/cgroup").is_dir() or not Path("/proc/filesystems").exists():
        raise HostError(
            "no cgroups are mounted at /sys/fs/cgroup", hint="mount them, or use a machine with an ordinary init"
        )
    # Where these are modules, nothing loads them for us; where they are built in, or there is no modprobe, it fails and
    # nothing is lost: whoever needs one says so.
    if shutil.which("modprobe"):
        subprocess.run(["modprobe", "--all", "overlay", "br_netfilter", "nf_tables"], check=False, capture_output=True)
    install(APT_PACKAGES)


def install(wanted: dict[str, str]) -> None:
    """apt-get install what is missing. Raises HostError."""
    # sbin is where Debian keeps most of these; a non-login shell's PATH may lack it.
    os.environ["PATH"] = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    packages = missing_packages(wanted, shutil.which)
    if not packages:
        return
    if shutil.which("apt-get") is None:
        raise HostError(
            f"these packages are missing and there is no apt-get to install them: {', '.join(packages)}",
            hint="install them with this machine's package manager",
        )
    say(f"installing {', '.join(packages)}")
    _apt(["update", "-qq"], packages)
    _apt(["install", "-qq", "-y", "--no-install-recommends", *packages], packages)


def _apt(arguments: Iterable[str], packages: tuple[str, ...]) -> None:
    done = subprocess.run(
        ["apt-get", *arguments],
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise HostError(
            f"apt-get could not install {', '.join(packages)}: {reason}",
            hint="check that the Debian mirror in /etc/apt/ is reachable, or install the packages yourself",
        )
