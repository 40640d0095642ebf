"""OCI archives: reading what one holds, and writing one around a single static program."""

import gzip
import hashlib
import io
import json
import re
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from cluster import versions
from cluster.errors import BuildError

PAUSE_IMAGE: Final = f"autotls.local/pause:{versions.PAUSE}"
COREDNS_IMAGE: Final = f"autotls.local/coredns:{versions.COREDNS}"

CONTAINERD_NAME: Final = "io.containerd.image.name"
REFERENCE_NAME: Final = "org.opencontainers.image.ref.name"
_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
_LAYER: Final = "application/vnd.oci.image.layer.v1.tar+gzip"


@dataclass(frozen=True, slots=True)
class ArchivedImage:
    """One image of an archive."""

    name: str
    digest: str


def full_name(reference: str) -> str:
    """The name under which the kubelet looks for an image: `web` means `docker.io/library/web:latest`.

    The rule is that of the distribution reference grammar: the first part is a host only with a dot or colon in it, or
    when it is `localhost`.
    """
    first, slash, _ = reference.partition("/")
    if not slash or not ("." in first or ":" in first or first == "localhost"):
        reference = f"docker.io/{reference}" if slash else f"docker.io/library/{reference}"
    return reference if re.search(r"[:@][^/]*$", reference) else f"{reference}:latest"


def read_index(archive: Path) -> dict[str, Any]:
    """The archive's index.json. Raises BuildError when it is no OCI archive."""
    try:
        with tarfile.open(archive) as tar:
            member = tar.extractfile("index.json")
            if member is None:
                raise KeyError("index.json")
            index: dict[str, Any] = json.loads(member.read())
            return index
    except OSError as error:
        raise BuildError(
            f"{archive} cannot be read: {error.strerror}",
            hint="give the path of an OCI archive: make load ARCHIVE=image.tar",
        ) from error
    except (KeyError, tarfile.TarError, ValueError) as error:
        raise BuildError(
            f"{archive} is not an OCI archive",
            hint="write one with `buildah push IMAGE oci-archive:image.tar:NAME:TAG` or `docker save` (25 or newer)",
        ) from error


def images(index: dict[str, Any], *, names: Sequence[str] = ()) -> tuple[ArchivedImage, ...]:
    """The images in that index with their full names; `names` replaces the name of the only one.

    Raises BuildError when an image has no name that a pod could ask for.
    """
    manifests: list[dict[str, Any]] = index.get("manifests", [])
    found: list[ArchivedImage] = []
    for manifest in manifests:
        annotations: dict[str, str] = manifest.get("annotations") or {}
        own = annotations.get(CONTAINERD_NAME) or annotations.get(REFERENCE_NAME)
        for name in names if names and len(manifests) == 1 else ([own] if own else []):
            found.append(ArchivedImage(full_name(name), str(manifest["digest"])))
    if not found:
        raise BuildError(
            "the archive does not say what its image is called",
            hint="name it when you write it: `buildah push IMAGE oci-archive:image.tar:NAME:TAG`",
        )
    return tuple(found)


def renamed(index: dict[str, Any], wanted: Sequence[ArchivedImage]) -> bytes:
    """That index with one entry for each wanted image, named so that containerd takes the name as it is."""
    by_digest: dict[str, dict[str, Any]] = {str(entry["digest"]): entry for entry in index["manifests"]}
    entries: list[dict[str, Any]] = []
    for image in wanted:
        own: dict[str, str] = by_digest[image.digest].get("annotations") or {}
        entries.append({**by_digest[image.digest], "annotations": {**own, CONTAINERD_NAME: image.name}})
    return json.dumps({**index, "manifests": entries}).encode()


def copy_with_index(archive: Path, index: bytes, target: IO[bytes]) -> None:
    """Write the archive to `target` with another index.json."""
    with tarfile.open(archive) as source, tarfile.open(fileobj=target, mode="w|") as out:
        for member in source:
            if member.name.removeprefix("./") == "index.json":
                _add(out, "index.json", index)
            elif member.name.removeprefix("./") != "manifest.json":
                # manifest.json is the older Docker form of the same content; with it the old names would come back.
                out.addfile(member, source.extractfile(member) if member.isfile() else None)


def write_program_image(path: Path, *, name: str, program: Path, architecture: str, user: str = "65532:65532") -> None:
    """An archive of one image that holds one static program as /<its name> and starts it. Same input, same bytes."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        member = tarfile.TarInfo(program.name)
        member.mode = 0o755
        content = program.read_bytes()
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    raw = layer.getvalue()
    blobs: dict[str, bytes] = {}

    def blob(media_type: str, content: bytes) -> dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        blobs[digest] = content
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}

    config = {
        "architecture": architecture,
        "os": "linux",
        "config": {"Entrypoint": [f"/{program.name}"], "User": user},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(raw).hexdigest()}"]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "config": blob(_CONFIG, json.dumps(config).encode()),
        "layers": [blob(_LAYER, gzip.compress(raw, compresslevel=1, mtime=0))],
    }
    entry = blob(_MANIFEST, json.dumps(manifest).encode()) | {"annotations": {CONTAINERD_NAME: name}}
    with tarfile.open(path, "w") as tar:
        _add(tar, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        _add(tar, "index.json", json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode())
        for digest, content in blobs.items():
            _add(tar, f"blobs/sha256/{digest}", content)


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))
