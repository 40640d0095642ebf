"""An API server with its etcd and nothing else, on the loopback of this machine: for tests that need no node.

    with apiserver.start(tmp_path) as api:
        api.url, api.kubeconfig
        api.kill(); api.restart()        # same data, same address

Many may run at a time. Without `controllers` nobody makes ServiceAccounts, ReplicaSets' pods or empties namespaces.
Admission webhooks are reached by `url: https://127.0.0.1:PORT/…`.
"""

import datetime
import subprocess
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cluster import binaries, controlplane, ports, recipes, versions
from cluster.controlplane import ControlPlane, Ports
from cluster.layout import Cache
from cluster.processes import ProcessTable, end

_DIE_WITH_US: Final = ("setpriv", "--pdeathsig", "KILL")
"""A test run that is killed must not leave servers behind."""


@dataclass(frozen=True, slots=True)
class Binaries:
    """Absolute paths of the programs."""

    etcd: Path
    kube_apiserver: Path
    kube_controller_manager: Path | None
    kubectl: Path


@dataclass(frozen=True, slots=True)
class ApiServer:
    """A running API server."""

    plane: ControlPlane
    table: ProcessTable
    programs: Binaries

    @property
    def url(self) -> str:
        return self.plane.server

    @property
    def kubeconfig(self) -> Path:
        """The administrator's."""
        return self.plane.admin_kubeconfig

    @property
    def authority(self) -> Path:
        """PEM file of the authority that signed the API server's certificate."""
        return self.plane.pair("ca").certificate

    def kill(self) -> None:
        """SIGKILL to the API server, as a crash; etcd and its data stay."""
        process = self.table.get("kube-apiserver")
        if process is not None:
            end([process], grace_s=0)

    def restart(self) -> None:
        """Start the API server again where it was, on the same data; ready on return. Raises StartError."""
        self.kill()
        controlplane.start_apiserver(self.plane, self.table, self.programs.kube_apiserver, _DIE_WITH_US)

    def kubectl(self, *arguments: str, stdin: str | None = None, check: bool = True) -> str:
        """Run kubectl as the administrator; its standard output. Raises CalledProcessError when it fails."""
        argv = [str(self.programs.kubectl), f"--kubeconfig={self.kubeconfig}", *arguments]
        done = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False)
        if check and done.returncode:
            raise subprocess.CalledProcessError(done.returncode, argv, done.stdout, done.stderr)
        return done.stdout


@contextmanager
def start(
    run_folder: Path,
    *,
    version: str = versions.KUBERNETES,
    controllers: bool = False,
    extra_arguments: tuple[str, ...] = (),
    cache: Cache | None = None,
) -> Generator[ApiServer]:
    """A ready API server of that version, ended on exit (its files stay in `run_folder`, an empty folder).

    `controllers` also runs a controller manager of the cluster's own version. Programs that are not built yet are built
    first, which takes minutes. Raises StartError, BuildError.
    """
    programs = _programs(cache or Cache.from_environment(), version, controllers=controllers)
    with ExitStack() as stack:
        api, etcd, peer = (stack.enter_context(ports.reserved()) for _ in range(3))
        server = _server(run_folder / "apiserver", programs, extra_arguments, Ports(api=api, etcd=etcd, etcd_peer=peer))
        stack.callback(_end, server.table)
        controlplane.start_storage(server.plane, server.table, programs.etcd, _DIE_WITH_US)
        controlplane.start_apiserver(server.plane, server.table, programs.kube_apiserver, _DIE_WITH_US)
        if programs.kube_controller_manager is not None:
            command = controlplane.controller_manager_command(server.plane, programs.kube_controller_manager)
            server.table.start("kube-controller-manager", [*command, "--secure-port=0"], enter=_DIE_WITH_US)
        yield server


def _programs(cache: Cache, version: str, *, controllers: bool) -> Binaries:
    current = binaries.ensure(cache, recipes.kubernetes())
    etcd = next(recipe for recipe in recipes.node_programs() if recipe.name == "etcd")
    return Binaries(
        etcd=binaries.ensure(cache, etcd) / "etcd",
        kube_apiserver=binaries.kubernetes_folder(cache, version, "kube-apiserver") / "kube-apiserver",
        kube_controller_manager=current / "kube-controller-manager" if controllers else None,
        kubectl=current / "kubectl",
    )


def _server(folder: Path, programs: Binaries, extra_arguments: tuple[str, ...], chosen: Ports) -> ApiServer:
    """Its files are written; nothing runs yet."""
    plane = ControlPlane(
        folder=folder,
        addresses=("127.0.0.1",),
        bind="127.0.0.1",
        service_ranges=controlplane.service_ranges(ipv6=False),
        ports=chosen,
        # A loopback address is no valid endpoint of the `kubernetes` Service; nothing here dials that Service.
        extra_arguments=("--endpoint-reconciler-type=none", *extra_arguments),
    )
    controlplane.write_files(plane, datetime.datetime.now(datetime.UTC))
    return ApiServer(plane, ProcessTable(folder / "processes", folder / "logs"), programs)


def _end(table: ProcessTable) -> None:
    # Nothing to save: the data ends with the test.
    end(table.all(), grace_s=0)
