"""`python -m cluster …`: what the Makefile's cluster targets call. Results on stdout, progress and errors on stderr."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from cluster import binaries, host, install, lifecycle, load, recipes, versions
from cluster.errors import ClusterError
from cluster.layout import DEFAULT_NAME, REPOSITORY, Cache, ClusterName, RunFolder
from cluster.progress import say


def main(arguments: Sequence[str]) -> int:
    """Exit code: 0, or 1 with one sentence and a hint on stderr."""
    options = _parser().parse_args(arguments)
    try:
        cache = Cache.from_environment()
        folder = cache.cluster(ClusterName.parse(os.environ.get("CLUSTER") or DEFAULT_NAME))
        command: Callable[[Cache, RunFolder, argparse.Namespace], None] = options.command
        command(cache, folder, options)
    except ClusterError as error:
        print(f"error: {error}\nhint: {error.hint}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {error}\nhint: is there room on the disk, and may you write there?", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; what was started still runs: make down ends it", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m cluster", description="A Kubernetes cluster on this machine.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(
        name: str, command: Callable[[Cache, RunFolder, argparse.Namespace], None], text: str
    ) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(command=command)
        return sub

    build = add("binaries", _binaries, "build the programs, once for each version")
    build.add_argument("--kubernetes", default=versions.KUBERNETES, metavar="VERSION")
    build.add_argument("--only", default="", metavar="PROGRAM,…", help="these programs of Kubernetes and nothing else")
    add("host", _host, "install the Debian packages that the tests call")
    start = add("up", _up, "start the cluster, or what of it does not run")
    start.add_argument("--bare", action="store_true", help="with our images, but without chart and sample application")
    remove = add("down", _down, "end the cluster")
    remove.add_argument("--purge", action="store_true", help="forget its images too")
    add("kubeconfig", _kubeconfig, "print the path of the administrator's kubeconfig")
    add("bin", _bin, "print the folder with autotls, kubectl, helm and ctr for this cluster")
    importing = add("load", _load, "import an image into the node")
    importing.add_argument("archive", type=Path, help="OCI archive")
    importing.add_argument("--name", action="append", default=[], help="name for the archive's only image; repeatable")
    return parser


def _host(_cache: Cache, _folder: RunFolder, _options: argparse.Namespace) -> None:
    host.prepare()
    host.install(host.TEST_APT_PACKAGES)


def _binaries(cache: Cache, _folder: RunFolder, options: argparse.Namespace) -> None:
    only = tuple(name for name in str(options.only).split(",") if name)
    if only or options.kubernetes != versions.KUBERNETES:
        print(binaries.ensure(cache, recipes.kubernetes(options.kubernetes, only)))
        return
    for path in binaries.ensure_all(cache):
        print(path)


def _up(cache: Cache, folder: RunFolder, options: argparse.Namespace) -> None:
    from images import builder  # it imports this package, so not at the top

    lifecycle.up(cache, folder)
    lifecycle.write_commands(folder, REPOSITORY, sys.executable)
    references = install.import_images(folder, builder.ensure_all(cache, named_base=os.environ.get("BASE_IMAGE", "")))
    if not options.bare:
        install.install(folder, references)
    say(f"the cluster {folder.name} is ready: export KUBECONFIG={folder.kubeconfig}")


def _down(_cache: Cache, folder: RunFolder, options: argparse.Namespace) -> None:
    (lifecycle.purge if options.purge else lifecycle.down)(folder)


def _kubeconfig(_cache: Cache, folder: RunFolder, _options: argparse.Namespace) -> None:
    print(folder.kubeconfig)


def _bin(_cache: Cache, folder: RunFolder, _options: argparse.Namespace) -> None:
    lifecycle.write_commands(folder, REPOSITORY, sys.executable)
    print(folder.bin)


def _load(_cache: Cache, folder: RunFolder, options: argparse.Namespace) -> None:
    lifecycle.require_running(folder)
    for image in load.load(folder, options.archive, names=options.name):
        print(f"{image.name} {image.digest}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
