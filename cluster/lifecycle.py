"""A whole cluster up and down. `up` may be run at any time and starts only what does not run; so may `down`."""

import datetime
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cluster import addons, binaries, cgroups, containers, controlplane, host, inotify, network, node, processes
from cluster.controlplane import ControlPlane
from cluster.errors import ClusterError, StartError
from cluster.layout import Cache, RunFolder
from cluster.locks import exclusive
from cluster.network import Link
from cluster.node import NODE, Node
from cluster.processes import Process, ProcessTable
from cluster.progress import say

_KEPT: Final = {"containerd", "bin"}
"""In the run folder after `down`: images, and the commands on people's PATH."""
_STOP_ORDER: Final = ("kubelet", "kube-proxy", "kube-scheduler", "kube-controller-manager")
"""Before the pods are ended: what would start them again or report them as failed."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """A running cluster."""

    folder: RunFolder
    node: Node
    holder: Process

    @property
    def plane(self) -> ControlPlane:
        return self.node.plane


def up(cache: Cache, folder: RunFolder) -> Cluster:
    """A cluster whose node is Ready, DNS included. Raises ClusterError."""
    host.prepare()
    search_path = binaries.ensure_all(cache)
    with exclusive(folder.lock, what=f"the cluster {folder.name}"):
        table = table_of(folder)
        link = network.current(folder)
        if link is None or table.get("holder") is None:
            _remove(folder)
            link = _prepare(cache, folder)
        _link_tools(folder, search_path)
        inotify.raise_limit(folder)
        cluster = _start(folder, link, table)
        addons.import_images(cache, folder)
        _start_workers(cluster)
        addons.install(cluster.plane, Path(cluster.node.tool("kubectl")))
    return cluster


def down(folder: RunFolder) -> None:
    """End the cluster, also one that was killed half-way; nothing happens when there is none. Raises ClusterError."""
    with exclusive(folder.lock, what=f"the cluster {folder.name}"):
        _remove(folder)
        inotify.restore_limit(folder)


def purge(folder: RunFolder) -> None:
    """`down`, and forget the images too."""
    down(folder)
    shutil.rmtree(folder.root, ignore_errors=True)
    folder.lock.unlink(missing_ok=True)


def is_running(folder: RunFolder) -> bool:
    """Whether this cluster's API server answers."""
    link = network.current(folder)
    return link is not None and controlplane.is_ready(plane_of(folder, link))


def table_of(folder: RunFolder) -> ProcessTable:
    return ProcessTable(folder.processes, folder.logs)


def plane_of(folder: RunFolder, link: Link) -> ControlPlane:
    return ControlPlane(
        folder=folder.root,
        addresses=link.node_addresses,
        bind="::" if link.ipv6 else "0.0.0.0",
        service_ranges=controlplane.service_ranges(ipv6=link.ipv6),
        audited=True,
    )


def _prepare(cache: Cache, folder: RunFolder) -> Link:
    folder.root.mkdir(parents=True, exist_ok=True)
    folder.logs.mkdir(exist_ok=True)
    with exclusive(cache.clusters / "network.lock", what="choosing a subnet"):
        link = network.create(cache, folder)
    cgroups.create(folder.cgroup)
    controlplane.write_files(plane_of(folder, link), datetime.datetime.now(datetime.UTC), nodes=[NODE])
    return link


def _link_tools(folder: RunFolder, search_path: tuple[Path, ...]) -> None:
    """One folder with all programs: the node's PATH, and a name that stays while versions change below it."""
    folder.tools.mkdir(exist_ok=True)
    for source in search_path:
        for program in source.iterdir():
            target = folder.tools / program.name
            aside = target.with_name(f".{program.name}")
            aside.unlink(missing_ok=True)
            aside.symlink_to(program)
            aside.rename(target)


def _start(folder: RunFolder, link: Link, table: ProcessTable) -> Cluster:
    """Holder, containerd, etcd and API server, as far as they do not run."""
    plane = plane_of(folder, link)
    machine = Node(folder, plane, link, table)
    holder = table.get("holder") or node.start_holder(machine)
    # etcd and containerd come up side by side; only the API server is waited for.
    if table.get("etcd") is None:
        controlplane.start_storage(plane, table, folder.tools / "etcd", machine.enter_network)
    if table.get("containerd") is None:
        node.start_containerd(machine, holder)
        if table.get("kubelet") is None and containers.forget(folder):
            # Left by a crash. containerd has read them into memory already.
            table.stop("containerd")
            node.start_containerd(machine, holder)
    if table.get("kube-apiserver") is None:
        say(f"starting the API server at {plane.server}")
        controlplane.start_apiserver(plane, table, folder.tools / "kube-apiserver", machine.enter_network)
    return Cluster(folder, machine, holder)


def _start_workers(cluster: Cluster) -> None:
    table, machine = cluster.node.table, cluster.node
    commands: dict[str, Callable[[], object]] = {
        "kube-controller-manager": lambda: table.start(
            "kube-controller-manager",
            controlplane.controller_manager_command(cluster.plane, cluster.folder.tools / "kube-controller-manager"),
            enter=machine.enter_network,
        ),
        "kube-scheduler": lambda: table.start(
            "kube-scheduler",
            controlplane.scheduler_command(cluster.plane, cluster.folder.tools / "kube-scheduler"),
            enter=machine.enter_network,
        ),
        "kubelet": lambda: node.start_kubelet(machine, cluster.holder),
        "kube-proxy": lambda: node.start_proxy(machine, cluster.holder),
    }
    for name, start in commands.items():
        if table.get(name) is None:
            start()
    kubelet = table.get("kubelet")
    if kubelet is None:
        raise StartError(
            f"the kubelet ended: {table.tail('kubelet')}", hint=f"read {cluster.folder.logs / 'kubelet.log'}"
        )
    kubectl = addons.Kubectl(Path(machine.tool("kubectl")), cluster.plane.admin_kubeconfig)
    table.wait(kubelet, lambda: kubectl.node_is_ready(NODE), timeout_s=300)


def _remove(folder: RunFolder) -> None:
    """End and remove everything that this cluster made, in an order in which nothing comes back."""
    table = table_of(folder)
    for name in _STOP_ORDER:
        table.stop(name)
    if network.owns_namespace(folder):
        # Pods hang in the cgroup, their shims in the namespace. Until the shims are gone containerd must live: it
        # writes down that the containers ended, and so does not look for them at its next start.
        processes.kill(lambda: cgroups.pids(folder.cgroup))
        if table.get("containerd") is not None:
            containers.forget(folder)
    for name in ("containerd", "kube-apiserver", "etcd"):
        table.stop(name)
    if network.owns_namespace(folder):
        # Both: containerd may have been starting a pod's process when those that were there had just been ended.
        processes.kill(lambda: (*network.pids(folder), *cgroups.pids(folder.cgroup)))
        cgroups.remove(folder.cgroup)
        network.destroy(folder)
    _clear(folder)


def _clear(folder: RunFolder) -> None:
    if folder.root.is_dir():
        for path in folder.root.iterdir():
            if path.name in _KEPT:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


def write_commands(folder: RunFolder, repository: Path, python: str) -> None:
    """The folder that `make -s bin` prints: autotls of this checkout, kubectl, helm and ctr of this cluster."""
    folder.bin.mkdir(parents=True, exist_ok=True)
    kubeconfig = f'export KUBECONFIG="${{KUBECONFIG:-{folder.kubeconfig}}}"'
    tools = folder.tools
    scripts = {
        "autotls": f'{kubeconfig}\nexport PYTHONPATH="{repository}"\nexec "{python}" -m cli.main "$@"',
        "kubectl": f'{kubeconfig}\nexec "{tools}/kubectl" "$@"',
        "helm": f'{kubeconfig}\nexec "{tools}/helm" "$@"',
        "ctr": f'exec "{tools}/ctr" --address "{folder.containerd_socket}" --namespace k8s.io "$@"',
    }
    for name, body in scripts.items():
        path = folder.bin / name
        aside = path.with_name(f".{name}")
        aside.write_text(f"#!/bin/sh\n{body}\n")
        aside.chmod(0o755)
        aside.rename(path)


def require_running(folder: RunFolder) -> None:
    """Raises ClusterError when the cluster does not run."""
    if not is_running(folder):
        name = "" if str(folder.name) == "autotls" else f"CLUSTER={folder.name} "
        raise ClusterError(f"the cluster {folder.name} does not run", hint=f"start it: {name}make up")
