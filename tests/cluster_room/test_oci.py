"""Image archives: what they hold, under which names, and the ones we write."""

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from cluster import oci
from cluster.errors import BuildError
from cluster.oci import ArchivedImage


@pytest.mark.parametrize(
    ("reference", "full"),
    [
        ("web", "docker.io/library/web:latest"),
        ("web:1", "docker.io/library/web:1"),
        ("team/web:1", "docker.io/team/web:1"),
        ("localhost/web:1", "localhost/web:1"),
        ("registry.local/web", "registry.local/web:latest"),
        ("registry:5000/web", "registry:5000/web:latest"),
        ("registry:5000/team/web:2", "registry:5000/team/web:2"),
        ("registry.local/web@sha256:abc", "registry.local/web@sha256:abc"),
    ],
)
def test_names_become_what_the_kubelet_looks_for(reference: str, full: str) -> None:
    assert oci.full_name(reference) == full


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    program = tmp_path / "hello"
    program.write_bytes(b"\x7fELF not really")
    path = tmp_path / "image.tar"
    oci.write_program_image(path, name="autotls.local/hello:1", program=program, architecture="amd64")
    return path


def blobs(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        return {
            member.name: extracted.read()
            for member in tar
            if member.isfile() and (extracted := tar.extractfile(member)) is not None
        }


def test_a_written_image_is_consistent_by_its_digests(archive: Path) -> None:
    content = blobs(archive)
    for name, data in content.items():
        if name.startswith("blobs/"):
            assert hashlib.sha256(data).hexdigest() == name.rpartition("/")[2]
    (entry,) = json.loads(content["index.json"])["manifests"]
    manifest = json.loads(content[f"blobs/sha256/{entry['digest'].removeprefix('sha256:')}"])
    config = json.loads(content[f"blobs/sha256/{manifest['config']['digest'].removeprefix('sha256:')}"])
    assert config["config"] == {"Entrypoint": ["/hello"], "User": "65532:65532"}
    assert len(manifest["layers"]) == len(config["rootfs"]["diff_ids"]) == 1


def test_the_same_program_gives_the_same_bytes(archive: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.tar"
    oci.write_program_image(again, name="autotls.local/hello:1", program=tmp_path / "hello", architecture="amd64")
    assert again.read_bytes() == archive.read_bytes()


def test_the_images_of_an_archive_are_read(archive: Path) -> None:
    (image,) = oci.images(oci.read_index(archive))
    assert image.name == "autotls.local/hello:1"
    assert image.digest.startswith("sha256:")


def test_the_only_image_can_be_given_other_names(archive: Path) -> None:
    index = oci.read_index(archive)
    (original,) = oci.images(index)
    wanted = oci.images(index, names=["hello", "autotls.local/hello:dev"])
    assert wanted == (
        ArchivedImage("docker.io/library/hello:latest", original.digest),
        ArchivedImage("autotls.local/hello:dev", original.digest),
    )
    copy = io.BytesIO()
    oci.copy_with_index(archive, oci.renamed(index, wanted), copy)
    target = archive.with_name("copy.tar")
    target.write_bytes(copy.getvalue())
    assert oci.images(oci.read_index(target)) == wanted
    before, after = blobs(archive), blobs(target)
    before.pop("index.json")
    after.pop("index.json")
    assert after == before


def test_the_name_that_other_builders_write_is_understood() -> None:
    index: dict[str, Any] = {"manifests": [{"digest": "sha256:1", "annotations": {oci.REFERENCE_NAME: "shop/web:3"}}]}
    assert oci.images(index) == (ArchivedImage("docker.io/shop/web:3", "sha256:1"),)


def test_an_image_without_a_name_is_refused() -> None:
    with pytest.raises(BuildError, match="does not say what its image is called"):
        oci.images({"manifests": [{"digest": "sha256:1"}]})


def test_a_file_that_is_no_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("hello")
    with pytest.raises(BuildError, match="is not an OCI archive"):
        oci.read_index(path)
    with pytest.raises(BuildError, match="No such file"):
        oci.read_index(tmp_path / "missing.tar")
    with pytest.raises(BuildError, match="Is a directory"):
        oci.read_index(tmp_path)
