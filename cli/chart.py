"""The objects of an installation, as text: by helm where it is, else from a manifest rendered at release.

Both render the same chart; `make manifest` writes the second and a test compares them.
"""

import hashlib
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Final, cast

import yaml

from cli.errors import CliError
from mesh import names
from mesh.version import VERSION

RELEASE: Final = "autotls"
HELM_TIMEOUT_S: Final = 60
# Helm's own default is whatever it was built with; from 1.30 on the chart renders the same objects.
DEFAULT_KUBERNETES: Final = "1.30.0"
# What `make manifest` gives the chart, to be replaced by what the user wants. None occurs in the chart by itself.
NAMESPACE_MARK: Final = "autotls-namespace-mark"
TRUST_DOMAIN_MARK: Final = "trust-domain-mark.invalid"
IMAGE_MARKS: Final = {"controlPlane": "control-plane-mark.invalid/image", "proxy": "proxy-mark.invalid/image"}
TAG_MARK: Final = "tag-mark"
REPLICAS_MARKS: Final = {"webhook": 17, "ca": 19}
MODES: Final = ("optional", "strict")

_DNS_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_TRUST_DOMAIN: Final = re.compile(r"[a-z0-9._-]{1,255}")
_IMAGE_PART: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@-]*")
# The chart sorts the excluded namespaces, in three notations; a mark does not sort where the real name does.
_EXCLUDED: Final = re.compile(r"\[[^\[\]]*kube-node-lease[^\[\]]*\]")
_QUOTED: Final = re.compile(r"\"[^\"]*\"|'[^']*'")
_POLICY_KINDS: Final = ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")


class ChartError(CliError):
    """The chart cannot be rendered with what was asked for."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to render: values as helm takes them, all optional but the namespace.

    `sets` are `key=value` of --set, `files` of --values; `kubernetes` is a version such as 1.29.
    """

    namespace: str
    sets: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    kubernetes: str | None = None


def render(wanted: Wanted, *, helm: str | None) -> str:
    """The chart's objects as a YAML stream, without a Namespace. Raises ChartError."""
    if not _DNS_LABEL.fullmatch(wanted.namespace):
        raise ChartError(
            f"{wanted.namespace!r} cannot be a namespace", hint="use lower-case letters, digits and dashes"
        )
    return render_by_helm(wanted, helm) if helm else render_shipped(wanted)


def find_helm() -> str | None:
    """The helm on PATH."""
    return shutil.which("helm")


def chart_folder() -> Path:
    """The chart inside the installed package, or of the repository this runs from. Raises ChartError."""
    package = Path(__file__).resolve().parent
    for folder in (package / "chart", package.parent / "charts" / "autotls"):
        if (folder / "Chart.yaml").is_file():
            return folder
    raise ChartError("this installation of autotls lacks its chart", hint="install the package again")


def render_by_helm(wanted: Wanted, helm: str) -> str:
    """What `helm template` writes. Raises ChartError with helm's own words."""
    command = [helm, "template", RELEASE, str(chart_folder()), "--namespace", wanted.namespace]
    command += [word for file in wanted.files for word in ("--values", file)]
    command += [word for pair in wanted.sets for word in ("--set", pair)]
    command += ["--kube-version", wanted.kubernetes or DEFAULT_KUBERNETES]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=HELM_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ChartError(
            f"{helm} cannot be run: {error}", hint="--no-helm uses the manifest shipped with autotls"
        ) from error
    if done.returncode != 0:
        text = " ".join(done.stderr.removeprefix("Error: ").split())
        raise ChartError(f"helm: {text}", hint="`docs/settings.md` lists the values")
    return done.stdout


def render_shipped(wanted: Wanted) -> str:
    """The shipped manifest with the few values that it can take. Raises ChartError for any other."""
    values = _values(wanted)
    mode = _take(values, "mode", "optional", MODES.__contains__, "optional or strict")
    text = (resources.files("cli.manifest") / f"{mode}.yaml").read_text(encoding="utf-8")
    trust_domain = _take(values, "trustDomain", "cluster.local", _matches(_TRUST_DOMAIN), "a trust domain")
    text = text.replace(TRUST_DOMAIN_MARK, trust_domain).replace(NAMESPACE_MARK, wanted.namespace)
    for image, mark in IMAGE_MARKS.items():
        text = text.replace(f"{mark}:{TAG_MARK}", _image(values, image))
    for component, mark in REPLICAS_MARKS.items():
        replicas = _take(values, f"{component}.replicas", "2", _is_count, "a number from 1 to 20")
        text = text.replace(f"replicas: {mark}\n", f"replicas: {replicas}\n")
    if values:
        raise ChartError(
            f"{min(values)} cannot be set without helm", hint="put helm (3.12 or newer) on PATH and try again"
        )
    text = _EXCLUDED.sub(_sorted_names, text)
    return _for_version(_with_checksums(text), wanted.kubernetes)


def _values(wanted: Wanted) -> dict[str, str]:
    """Dotted name -> text, of files and then of --set, as helm orders them."""
    values: dict[str, str] = {}
    for file in wanted.files:
        try:
            loaded = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
        except OSError as error:
            raise ChartError(f"cannot read {file}: {error.strerror}", hint="give a YAML file of values") from error
        except (yaml.YAMLError, ValueError) as error:
            raise ChartError(f"{file} is not YAML: {' '.join(str(error).split())}") from error
        if loaded is not None and not isinstance(loaded, dict):
            raise ChartError(f"{file} holds no mapping", hint="give a YAML file of values")
        values |= _flattened(cast(dict[str, Any], loaded or {}), "")
    for pair in (pair for pairs in wanted.sets for pair in pairs.split(",")):
        key, equals, value = pair.partition("=")
        if not equals:
            raise ChartError(f"--set {pair} has no value", hint="write --set key=value")
        values[key] = value
    return values


def _flattened(value: Mapping[str, Any], prefix: str) -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, item in value.items():
        if isinstance(item, dict):
            flat |= _flattened(cast(dict[str, Any], item), f"{prefix}{key}.")
        else:
            flat[prefix + key] = str(item)
    return flat


def _take(values: dict[str, str], key: str, default: str, allowed: Callable[[str], bool], what: str) -> str:
    value = values.pop(key, default)
    if not allowed(value):
        raise ChartError(f"{key}: {value!r} is not {what}")
    return value


def _matches(pattern: re.Pattern[str]) -> Callable[[str], bool]:
    def allowed(text: str) -> bool:
        return pattern.fullmatch(text) is not None

    return allowed


def _is_count(text: str) -> bool:
    return text.isdecimal() and 1 <= int(text) <= 20


def _image(values: dict[str, str], image: str) -> str:
    default = {"controlPlane": "autotls/control-plane", "proxy": "autotls/proxy"}[image]
    valid, what = _matches(_IMAGE_PART), "part of an image name"
    repository = _take(values, f"image.{image}.repository", default, valid, what)
    tag = _take(values, f"image.{image}.tag", VERSION, valid, what)
    digest = values.pop(f"image.{image}.digest", "")
    if digest and not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
        raise ChartError(f"image.{image}.digest: {digest!r} is not sha256:<64 hex digits>")
    return f"{repository}@{digest}" if digest else f"{repository}:{tag}"


def _sorted_names(found: re.Match[str]) -> str:
    """The same list with its items in order, white space and quotes untouched."""
    ordered = iter(sorted(_QUOTED.findall(found.group())))
    return _QUOTED.sub(lambda _: next(ordered), found.group())


def _with_checksums(text: str) -> str:
    """The pods' checksums of what they read, as the chart computes them: they roll when it changes."""
    data: dict[str, str] = {}
    for document in yaml.safe_load_all(text):
        if document and document["kind"] == "ConfigMap":
            data |= document["data"]
    sums = {"config": data[names.CONFIG_KEY], "registration": data["registration.json"]}
    for name, content in sums.items():
        digest = hashlib.sha256(content.removesuffix("\n").encode()).hexdigest()
        text = re.sub(rf"checksum/{name}: [0-9a-f]+", f"checksum/{name}: {digest}", text)
    return text


def _for_version(text: str, kubernetes: str | None) -> str:
    """Without what that version of Kubernetes does not know."""
    found = re.match(r"v?1\.(\d+)", kubernetes or "")
    if not found or int(found.group(1)) >= 30:
        return text
    documents = re.split(r"(?m)^---\n", text)
    kept = [each for each in documents if not re.search(rf"(?m)^kind: ({'|'.join(_POLICY_KINDS)})$", each)]
    return "---\n".join(kept)


def marked_sets(mode: str) -> Sequence[str]:
    """The --set values with which `make manifest` renders the chart."""
    images = [f"image.{image}.{part}" for image in IMAGE_MARKS for part in ("repository", "tag")]
    marks = [mark for repository in IMAGE_MARKS.values() for mark in (repository, TAG_MARK)]
    pairs = dict(zip(images, marks, strict=True)) | {"mode": mode, "trustDomain": TRUST_DOMAIN_MARK}
    pairs |= {f"{component}.replicas": str(mark) for component, mark in REPLICAS_MARKS.items()}
    return [f"{key}={value}" for key, value in pairs.items()]
