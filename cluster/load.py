"""Importing images into a node; one that is there already with the same digest is left alone."""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from cluster import oci
from cluster.containers import ctr
from cluster.errors import StartError
from cluster.layout import RunFolder
from cluster.oci import ArchivedImage
from cluster.progress import say


def load(folder: RunFolder, archive: Path, *, names: Sequence[str] = ()) -> tuple[ArchivedImage, ...]:
    """Import the archive's images under their full names, or its only image under `names`.

    Raises BuildError when the archive is none, StartError when the node does not take it.
    """
    index = oci.read_index(archive)
    wanted = oci.images(index, names=names)
    present = present_images(folder)
    if all(present.get(image.name) == image.digest for image in wanted):
        return wanted
    say(f"importing {', '.join(image.name for image in wanted)}")
    with subprocess.Popen(
        [*ctr(folder), "images", "import", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as importer:
        assert importer.stdin is not None
        assert importer.stderr is not None
        try:
            with importer.stdin as target:
                oci.copy_with_index(archive, oci.renamed(index, wanted), target)
        except BrokenPipeError:
            pass  # it gave up early; its message follows
        message = importer.stderr.read().decode(errors="replace").strip()
    if importer.returncode:
        raise StartError(f"{archive.name} cannot be imported: {message}", hint=f"read {folder.logs / 'containerd.log'}")
    return wanted


def present_images(folder: RunFolder) -> Mapping[str, str]:
    """Name -> digest of what the node has. Raises StartError when containerd does not answer."""
    done = subprocess.run([*ctr(folder), "images", "ls"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise StartError(
            f"the node's containerd does not answer: {done.stderr.strip()}", hint="start the cluster: make up"
        )
    rows = (line.split() for line in done.stdout.splitlines()[1:])
    return {row[0]: row[2] for row in rows if len(row) > 2}
