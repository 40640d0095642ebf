"""containerd's client, and forgetting the containers of earlier runs."""

import subprocess

from cluster.layout import RunFolder


def ctr(folder: RunFolder) -> tuple[str, ...]:
    """Command prefix: containerd's client in the kubelet's namespace of names."""
    return (str(folder.tools / "ctr"), f"--address={folder.containerd_socket}", "--namespace=k8s.io")


def answers(folder: RunFolder) -> bool:
    """Whether containerd can be asked."""
    if not folder.containerd_socket.exists():
        return False
    return subprocess.run([*ctr(folder), "version"], capture_output=True, check=False).returncode == 0


def forget(folder: RunFolder) -> bool:
    """Remove every container and pod sandbox that containerd has on record; True when there was one.

    Images outlive a cluster in containerd's folder, and with them its list of containers. Nothing of theirs runs any
    more, but the kubelet would take minutes to sort them out. What still runs is left alone by containerd itself.
    """
    containers = _names(folder, "containers")
    sandboxes = _names(folder, "sandboxes")
    if containers:
        _run(folder, "containers", "rm", *containers)
    if sandboxes:
        _run(folder, "sandboxes", "rm", *sandboxes)
    return bool(containers or sandboxes)


def _names(folder: RunFolder, kind: str) -> list[str]:
    # `sandboxes ls` knows no --quiet: the name is the first column, below a heading.
    if kind == "containers":
        return _run(folder, kind, "ls", "--quiet").split()
    return [line.split()[0] for line in _run(folder, kind, "ls").splitlines()[1:] if line.strip()]


def _run(folder: RunFolder, *arguments: str) -> str:
    return subprocess.run([*ctr(folder), *arguments], capture_output=True, text=True, check=False).stdout
