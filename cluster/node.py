"""The node: containerd, kubelet and kube-proxy, in a network and a mount namespace of their own.

The mount namespace belongs to a process that only sleeps (the holder). All mounts of pods are made in it and vanish
with it, however the cluster ends; and folders that programs insist on (/var/log/pods …) are the cluster's own there.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cluster import containers, network
from cluster.controlplane import ControlPlane
from cluster.layout import RunFolder
from cluster.network import Link
from cluster.oci import PAUSE_IMAGE
from cluster.processes import Process, ProcessTable

NODE: Final = "node1"

FIXED_FOLDERS: Final = ("/run/containerd", "/var/lib/cni", "/var/log/containers", "/var/log/pods")
"""Folders that containerd, libcni and the kubelet write to whatever their configuration says. They stay on the machine,
empty: removing a folder silently unmounts what other clusters have mounted on it in their own namespaces (rmdir(2))."""

_KUBELET_SYSCTLS: Final = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}
"""What the kubelet sets on the machine unless it finds it so (pkg/kubelet/cm, setupKernelTunables). These are the
machine's, not the node's: the node is shown files with the wanted values instead."""


@dataclass(frozen=True, slots=True)
class Node:
    """One node's files and commands."""

    folder: RunFolder
    plane: ControlPlane
    link: Link
    table: ProcessTable

    @property
    def enter_network(self) -> tuple[str, ...]:
        # Not `ip netns exec`: that mounts a fresh /sys, which hides the cgroups from the kubelet.
        return ("nsenter", f"--net=/run/netns/{self.folder.netns}")

    def enter(self, holder: Process) -> tuple[str, ...]:
        """Command prefix that puts a process on the node."""
        return (*self.enter_network, f"--mount=/proc/{holder.pid}/ns/mnt")

    def tool(self, name: str) -> str:
        return str(self.folder.tools / name)

    @property
    def environment(self) -> dict[str, str]:
        """The node's programs find each other, runc and the CNI plugins here; nothing of our shell's leaks in."""
        return {"PATH": f"{self.folder.tools}:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}


def start_holder(node: Node) -> Process:
    """The process that keeps the mount namespace. Raises StartError."""
    ready = node.folder.root / "holder.ready"
    ready.unlink(missing_ok=True)
    mounts: list[str] = []
    for target in FIXED_FOLDERS:
        source = node.folder.private / target.strip("/").replace("/", "-")
        source.mkdir(parents=True, exist_ok=True)
        Path(target).mkdir(parents=True, exist_ok=True)
        mounts += [str(source), target]
    for sysctl, value in _KUBELET_SYSCTLS.items():
        source = node.folder.private / sysctl.replace("/", "-")
        source.write_text(f"{value}\n")
        mounts += [str(source), f"/proc/sys/{sysctl}"]
    # Slave: mounts of the machine appear on the node, never the other way. Shared on top of that: what is mounted for
    # one pod's Bidirectional volume must reach other pods, as on any node.
    script = (
        'set -e; ready=$1; shift; while [ $# -gt 0 ]; do mount --bind "$1" "$2"; shift 2; done; '
        'mount --make-rshared /; touch "$ready"; exec sleep infinity'
    )
    holder = node.table.start(
        "holder",
        ["unshare", "--mount", "--propagation=slave", "sh", "-c", script, "holder", str(ready), *mounts],
        enter=node.enter_network,
    )
    node.table.wait(holder, ready.exists, timeout_s=120)
    return holder


def start_containerd(node: Node, holder: Process) -> Process:
    """containerd, answering. Raises StartError."""
    folder = node.folder
    config = folder.root / "containerd.toml"
    config.write_text(containerd_config(folder))
    cni = folder.root / "cni"
    cni.mkdir(exist_ok=True)
    (cni / "10-autotls.conflist").write_text(json.dumps(cni_config(folder, node.link), indent=1))
    folder.containerd_socket.unlink(missing_ok=True)
    process = node.table.start(
        "containerd",
        [node.tool("containerd"), f"--config={config}"],
        enter=node.enter(holder),
        env=node.environment,
    )
    # The socket is there a moment before anybody listens.
    node.table.wait(process, lambda: containers.answers(folder), timeout_s=120)
    return process


def start_kubelet(node: Node, holder: Process) -> Process:
    """The kubelet; the node's Ready condition says when it works. Raises StartError."""
    folder = node.folder
    config = folder.root / "kubelet.json"
    config.write_text(json.dumps(kubelet_config(folder, node.plane), indent=1))
    (folder.root / "resolv.conf").write_text("# pods with dnsPolicy Default: the node knows no name server\n")
    return node.table.start(
        "kubelet",
        [
            node.tool("kubelet"),
            f"--kubeconfig={node.plane.kubeconfig(NODE)}",
            f"--config={config}",
            f"--root-dir={folder.root / 'kubelet'}",
            f"--hostname-override={NODE}",
            f"--node-ip={','.join(node.link.node_addresses)}",
        ],
        enter=node.enter(holder),
        env=node.environment,
    )


def start_proxy(node: Node, holder: Process) -> Process:
    """kube-proxy, which makes Service addresses work on the node."""
    pods = f"{network.PODS},{network.PODS_V6}" if node.link.ipv6 else network.PODS
    return node.table.start(
        "kube-proxy",
        [
            node.tool("kube-proxy"),
            f"--kubeconfig={node.plane.kubeconfig('kube-proxy')}",
            "--proxy-mode=nftables",
            f"--hostname-override={NODE}",
            f"--cluster-cidr={pods}",
            # The machine's connection table, not the node's: leave it as it is.
            "--conntrack-max-per-core=0",
        ],
        enter=node.enter(holder),
        env=node.environment,
    )


def containerd_config(folder: RunFolder) -> str:
    """containerd's configuration, version 3."""
    root = folder.root
    return f"""version = 3
root = "{folder.containerd}"
state = "{root}/containerd-state"
# opt would make /opt/containerd, NRI a socket that two clusters would share.
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.nri.v1.nri"]

[grpc]
  address = "{folder.containerd_socket}"

[ttrpc]
  address = "{folder.containerd_socket}.ttrpc"

[plugins.'io.containerd.cri.v1.images']
  snapshotter = "overlayfs"
  [plugins.'io.containerd.cri.v1.images'.pinned_images]
    sandbox = "{PAUSE_IMAGE}"

[plugins.'io.containerd.cri.v1.runtime']
  disable_apparmor = true
  restrict_oom_score_adj = true
  # Namespaces of pods then lie below the run folder, inside the node's mount namespace, and vanish with it.
  netns_mounts_under_state_dir = true
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ["{folder.tools}"]
    conf_dir = "{root}/cni"
  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
      SystemdCgroup = false
      Root = "{root}/runc"
"""


def cni_config(folder: RunFolder, link: Link) -> dict[str, object]:
    """One bridge for all pods; their ends of the veth pairs are in the node's namespace."""
    ranges = [[{"subnet": network.PODS}]]
    routes = [{"dst": "0.0.0.0/0"}]
    if link.ipv6:
        ranges.append([{"subnet": network.PODS_V6}])
        routes.append({"dst": "::/0"})
    bridge = {
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        # A pod that reaches itself through its Service needs the bridge to send the packet back where it came from.
        "hairpinMode": True,
        "ipam": {"type": "host-local", "dataDir": str(folder.root / "ipam"), "ranges": ranges, "routes": routes},
    }
    portmap = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {"cniVersion": "1.0.0", "name": "autotls", "plugins": [bridge, portmap]}


def kubelet_config(folder: RunFolder, plane: ControlPlane) -> dict[str, object]:
    """KubeletConfiguration, v1beta1."""
    serving = plane.pair(f"{NODE}-serving")
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(plane.pair("ca").certificate)},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(serving.certificate),
        "tlsPrivateKeyFile": str(serving.key),
        "cgroupDriver": "cgroupfs",
        # A cgroup for each cluster: a kubelet ends every pod below its root that it does not know.
        "cgroupRoot": f"/{folder.cgroup}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "containerRuntimeEndpoint": f"unix://{folder.containerd_socket}",
        "clusterDomain": "cluster.local",
        "clusterDNS": [network.DNS],
        "resolvConf": str(folder.root / "resolv.conf"),
        # The default of one minute decides how long a mounted Secret stays old; tests of identities that come late
        # would wait 60 to 90 s each. Fifteen seconds show the same behaviour.
        "syncFrequency": "15s",
        # Images here come from archives, not from a registry: one that is collected cannot be pulled again.
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "serializeImagePulls": False,
        "maxPods": 250,
        "volumePluginDir": str(folder.root / "volume-plugins"),
    }
