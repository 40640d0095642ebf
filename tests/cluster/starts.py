"""Pods started a batch at a time, and what a peer and openssl see of each one's identity."""

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mesh import names
from tests.cluster.kubectl import OPTED_IN, Object, Space, as_list, eventually, is_ready, statuses_of, tell
from tests.cluster.machine import Machine
from tests.cluster.plane import a_pod, an_account, save_identity
from tests.fixtures_cluster import RunningCluster

FIRST, NEW_NAMESPACE, KNOWN = "new ServiceAccount", "new namespace", "known ServiceAccount"


@dataclass(frozen=True, slots=True)
class Start:
    """One pod that was started, and what a peer saw of it."""

    case: str
    spiffe_id: str
    late_s: float
    """Seconds from the pod's sandbox to its identity in the volume; negative: it was there before."""
    served: dict[str, Any]
    """What a peer was shown on 15108."""
    accepted: dict[str, Any]
    """What it was answered as a client of another pod."""
    faults: list[str]
    """What openssl says about its certificate as a client's and as a server's."""


def start(home: Space, batch: list[tuple[str, str]], server: str, folder: Path) -> list[Start]:
    """Starts pods with one `kubectl apply`, looks at each, and removes them."""
    cluster, machine = home.cluster, Machine(home.cluster)
    objects: list[Object] = []
    places: dict[str, str] = {}
    for case, name in batch:
        places[name] = f"{home.name}-{name}" if case == NEW_NAMESPACE else home.name
        if case == NEW_NAMESPACE:
            metadata = {"name": places[name], "labels": OPTED_IN}
            objects.append({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        account = "server" if case == KNOWN else name
        if case != KNOWN:
            objects.append(in_namespace(an_account(account), places[name]))
        objects.append(in_namespace(small_pod(cluster, name, account), places[name]))
    cluster.kubectl("apply", "--filename=-", stdin=as_list(objects))
    pods = wait_ready(cluster, places)
    seen = look(machine, [(case, pods[name]) for case, name in batch], server, folder)
    for case, name in batch:
        if case == NEW_NAMESPACE:
            cluster.kubectl("delete", "namespace", places[name], "--wait=false")
    mine = [name for case, name in batch if case != NEW_NAMESPACE]
    if mine:
        home.kubectl("delete", "pod", *mine, "--wait=false")
    return seen


def in_namespace(item: Object, namespace: str) -> Object:
    return {**item, "metadata": {**item["metadata"], "namespace": namespace}}


def small_pod(cluster: RunningCluster, name: str, account: str) -> Object:
    """Something that runs and does nothing: 52 servers would be a test of the machine."""
    pod = a_pod(cluster, name, account)
    pod["spec"]["containers"][0]["command"] = ["sleep", "infinity"]
    del pod["spec"]["containers"][0]["readinessProbe"]
    return pod


def wait_ready(cluster: RunningCluster, places: dict[str, str]) -> dict[str, Object]:
    def ready() -> dict[str, Object] | None:
        found = cluster.get("pods", "--all-namespaces")["items"]
        pods = {p["metadata"]["name"]: p for p in found if places.get(p["metadata"]["name"]) == namespace_of(p)}
        waiting = [tell(pod) for pod in pods.values() if not is_ready(pod)]
        told[:] = [*waiting, f"{len(pods)} of {len(places)} exist"]
        return pods if len(pods) == len(places) and not waiting else None

    told: list[str] = []
    return eventually(ready, lambda: f"pods Ready: {told}")


def namespace_of(item: Object) -> str:
    return item["metadata"]["namespace"]


def look(machine: Machine, batch: list[tuple[str, Object]], server: str, folder: Path) -> list[Start]:
    """All of a batch at a time: each look is a program to start, and the machine is small."""
    pods = [pod for _, pod in batch]
    running = machine.processes()
    late = [arrival_of(Path(f"/proc/{running[container_of(pod)]}/root")) for pod in pods]
    secrets = {key_of(each): each for each in machine.cluster.get("secrets", "--all-namespaces")["items"]}
    own = [save_identity(secrets[identity_of(pod)], folder / pod["metadata"]["name"]) for pod in pods]
    told: list[dict[str, Any]] = []

    def answered() -> bool:
        # Envoy reads files that came later by itself, a moment after they came.
        served = [job(pod["status"]["podIP"], identity) for pod, identity in zip(pods, own, strict=True)]
        told[:] = machine.call(*served, *(job(server, identity) for identity in own))
        return all("peer" in answer for answer in told[: len(pods)])

    eventually(answered, lambda: f"every pod of the batch serves its identity: {told}")
    return [
        Start(
            case, spiffe_id_of(pod), late[number], told[number], told[len(pods) + number], openssl_faults(own[number])
        )
        for number, (case, pod) in enumerate(batch)
    ]


def job(address: str, identity: Path) -> dict[str, Any]:
    return {"address": address, "port": names.INBOUND_TLS_PORT, "identity": str(identity)}


def container_of(pod: Object) -> str:
    return statuses_of(pod)[names.PROXY_CONTAINER]["containerID"].removeprefix("containerd://")


def key_of(item: Object) -> tuple[str, str]:
    return namespace_of(item), item["metadata"]["name"]


def identity_of(pod: Object) -> tuple[str, str]:
    return namespace_of(pod), names.identity_secret_name(pod["spec"]["serviceAccountName"])


def spiffe_id_of(pod: Object) -> str:
    return f"spiffe://cluster.local/ns/{namespace_of(pod)}/sa/{pod['spec']['serviceAccountName']}"


def arrival_of(root: Path) -> float:
    """Seconds from the pod's sandbox to its identity in the volume, once it is there.

    The kubelet swaps `..data` when the content changes, and mounts before it asks for a sandbox, whose first file is
    /etc/hostname.
    """
    # /var/run is a link to /run in the image, and an absolute link would lead out of this root.
    mount = root / names.IDENTITY_MOUNT.removeprefix("/var/")
    eventually(lambda: has_key(mount), "identity files")
    return os.lstat(mount / "..data").st_mtime - (root / "etc/hostname").stat().st_mtime


def has_key(mount: Path) -> bool:
    return (mount / "..data" / names.TLS_PRIVATE_KEY_KEY).exists()


def openssl_faults(folder: Path, purposes: Sequence[str] = ("sslclient", "sslserver")) -> list[str]:
    """What `openssl verify` complains about: the leaf against the bundle, with the issuer beside it untrusted."""
    faults: list[str] = []
    for purpose in purposes:
        chain = folder / names.TLS_CERT_KEY
        argv = ["openssl", "verify", "-x509_strict", "-purpose", purpose, "-CAfile", str(folder / "ca.crt")]
        done = subprocess.run(
            [*argv, "-untrusted", str(chain), str(chain)], capture_output=True, text=True, check=False
        )
        if done.returncode or not done.stdout.strip().endswith(": OK"):
            faults.append(f"{purpose}: {done.stdout}{done.stderr}")
    return faults
