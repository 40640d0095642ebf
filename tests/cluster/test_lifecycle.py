"""A cluster of its own, brought up, crashed and removed: nothing of it stays on the machine.

Needs no running cluster; takes about a minute. (The pure parts are tested in tests/cluster_room.)
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cluster import cgroups, lifecycle, network
from cluster.addons import Kubectl
from cluster.containers import ctr
from cluster.errors import NameTakenError
from cluster.layout import Cache, ClusterName, RunFolder
from cluster.lifecycle import Cluster
from cluster.oci import PAUSE_IMAGE

pytestmark = pytest.mark.cluster


def until(condition: Callable[[], bool], what: str, *, timeout_s: float = 600) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        time.sleep(0.2)


@pytest.fixture
def folder() -> Iterator[RunFolder]:
    """A cluster's folder that no other test process uses."""
    made = Cache.from_environment().cluster(ClusterName.parse(f"life-{os.getpid()}"))
    yield made
    lifecycle.purge(made)


def traces(folder: RunFolder) -> dict[str, list[str]]:
    """Everything on this machine that bears the cluster's name or lies in its folder."""
    root = str(folder.root)
    processes = [
        f"{path.parent.name}: {command}"
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if root in (command := _read(path).replace("\0", " "))
    ]
    links: list[dict[str, str]] = json.loads(subprocess.check_output(["ip", "-j", "link"], text=True))
    recorded = network.Recorded.read(folder.link)
    device = f"autotls{recorded.index}" if recorded else ""
    return {
        "processes": processes,
        "mounts": [line for line in _read(Path("/proc/mounts")).splitlines() if root in line or folder.netns in line],
        "namespaces": [path.name for path in Path("/run/netns").glob(folder.netns)],
        "cgroups": [str(path) for path in Path("/sys/fs/cgroup").glob(f"**/{folder.cgroup}")],
        "devices": [link["ifname"] for link in links if link["ifname"] == device],
    }


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def run_pod(cluster: Cluster, name: str) -> None:
    kubectl = Kubectl(cluster.folder.tools / "kubectl", cluster.folder.kubeconfig)
    kubectl.run("run", name, f"--image={PAUSE_IMAGE}", "--image-pull-policy=Never")
    kubectl.run("wait", "pod", name, "--for=condition=Ready", "--timeout=600s")


def recorded_containers(folder: RunFolder) -> set[str]:
    return set(subprocess.check_output([*ctr(folder), "containers", "ls", "--quiet"], text=True).split())


def test_a_crashed_cluster_leaves_nothing_and_starts_again(folder: RunFolder) -> None:
    cache = Cache.from_environment()
    cluster = lifecycle.up(cache, folder)
    run_pod(cluster, "one")
    found = traces(folder)
    assert all(found[kind] for kind in ("processes", "namespaces", "cgroups", "devices")), found
    device = found["devices"][0]
    pods = cgroups.pids(folder.cgroup)
    assert pods
    earlier = recorded_containers(folder)
    assert len(earlier) >= 4  # CoreDNS and the pod, each with its sandbox; more when one was started anew

    for name in ("containerd", "kube-apiserver", "holder"):
        process = cluster.node.table.get(name)
        assert process is not None
        os.kill(process.pid, signal.SIGKILL)
        until(lambda process=process: not process.alive(), f"{name} is gone")
    lifecycle.down(folder)

    assert traces(folder) == {kind: [] for kind in found}
    assert device not in subprocess.check_output(["ip", "link"], text=True).replace("@", " ").split()
    for pid in pods:
        assert folder.cgroup not in _read(Path(f"/proc/{pid}/cgroup"))
    lifecycle.down(folder)

    again = lifecycle.up(cache, folder)
    run_pod(again, "two")
    assert recorded_containers(folder).isdisjoint(earlier)


def test_up_starts_only_what_does_not_run(folder: RunFolder) -> None:
    cache = Cache.from_environment()
    cluster = lifecycle.up(cache, folder)
    run_pod(cluster, "stays")
    before = {process.name: process for process in cluster.node.table.all()}
    killed = before.pop("kube-apiserver")
    os.kill(killed.pid, signal.SIGKILL)
    until(lambda: not killed.alive(), "the API server is gone")

    after = {process.name: process for process in lifecycle.up(cache, folder).node.table.all()}

    restarted = after.pop("kube-apiserver")
    assert restarted.pid != killed.pid
    assert after == before
    kubectl = Kubectl(folder.tools / "kubectl", folder.kubeconfig)
    assert kubectl.run("get", "pod", "stays", "--output=jsonpath={.status.phase}") == "Running"


def test_a_namespace_of_somebody_else_is_neither_used_nor_removed(folder: RunFolder) -> None:
    subprocess.check_call(["ip", "netns", "add", folder.netns])
    try:
        with pytest.raises(NameTakenError, match="did not make"):
            lifecycle.up(Cache.from_environment(), folder)
        lifecycle.down(folder)
        assert (Path("/run/netns") / folder.netns).exists()
    finally:
        subprocess.check_call(["ip", "netns", "delete", folder.netns])
