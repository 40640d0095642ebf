"""`autotls inject`."""

from pathlib import Path

import click

from cli import output, sources
from cli.changes import webhook_change
from cli.document import BOM, parse_stream
from cli.errors import CliError
from cli.injection import Outcome, Report, inject_text
from cli.mesh_state import MeshState, by_default
from cli.sources import Source
from cli.target import Target, cluster_options, context_namespace, kubeconfig_files
from cli.workloads import Workload, objects
from mesh.config import Mode, parse_config


@click.command("inject")
@click.argument("files", nargs=-1, required=True, metavar="FILE|DIR|-...")
@click.option("--tls", "mode", type=click.Choice(["optional", "strict"]), help="Write this mode as a label.")
@click.option("-R", "--recursive", is_flag=True, help="Look into folders inside DIR as well.")
@click.option("-n", "--namespace", metavar="NAME", help="Namespace of manifests that name none [the context's].")
@click.option("--ignore-cluster", is_flag=True, help="Ask no cluster: use the default settings, or --config.")
@click.option("--config", "config_file", metavar="FILE", help="Settings from a copy of ConfigMap autotls-config.")
@cluster_options
def command(  # noqa: PLR0917 - click passes options by name
    files: tuple[str, ...],
    mode: Mode | None,
    recursive: bool,
    namespace: str | None,
    ignore_cluster: bool,
    config_file: str | None,
    target: Target,
) -> None:
    """Add the sidecar to the workloads in manifests, and change nothing else of their text.

    Reads YAML or JSON and writes it to stdout, what became of each object to stderr. What is written is what the
    webhook would add, which then leaves these pods alone. Already injected workloads stay as they are.

    \b
      autotls inject --tls=optional app.yml | kubectl apply -f -
      helm template my-chart | autotls inject - | kubectl apply -f -
    """
    read = sources.read_sources(files, recursive=recursive)
    default_namespace = namespace or (None if ignore_cluster else context_namespace(target)) or "default"
    used = {default_namespace, *_namespaces(read)}
    state = _state(target, used, ignore_cluster=ignore_cluster, config_file=config_file)
    if state.told:
        output.report(state.told)
    texts: list[str] = []
    reports: list[tuple[Source, Report]] = []
    for source in read:
        change = webhook_change(
            state.config, state.namespaces, default_namespace=default_namespace, mode=mode, origin=source.origin
        )
        text, found = inject_text(source.text, origin=source.origin, change=change)
        texts.append(text)
        reports += [(source, report) for report in found]
    show(reports)
    output.result(sources.join(texts))


def _namespaces(read: tuple[Source, ...]) -> set[str]:
    found: set[str] = set()
    for source in read:
        text = source.text.removeprefix(BOM)
        documents = parse_stream(text, origin=source.origin)
        for item in objects(documents, text=text, origin=source.origin):
            if isinstance(item, Workload) and item.namespace:
                found.add(item.namespace)
    return found


def _state(target: Target, used: set[str], *, ignore_cluster: bool, config_file: str | None) -> MeshState:
    state = MeshState() if ignore_cluster else _asked(target, used)
    if config_file is None:
        return state
    try:
        content = Path(config_file).read_bytes()
    except OSError as error:
        raise CliError(f"cannot read {config_file}: {error.strerror}", hint="give the text of config.yaml") from error
    return MeshState(parse_config(content), state.namespaces, f"the settings of {config_file} are used")


def _asked(target: Target, used: set[str]) -> MeshState:
    if not kubeconfig_files(target):
        return by_default("no kubeconfig")
    # Not at the top: the client of the API server is most of this command's CPU, and without a cluster none is needed.
    from cli.installation import ask_cluster

    return ask_cluster(target, used)


def show(reports: list[tuple[Source, Report]]) -> None:
    """One line for each object on stderr."""
    for source, report in reports:
        name = f"{report.kind.lower()}/{report.name}"
        words = report.outcome if report.outcome != Outcome.NO_WORKLOAD else "not a workload"
        output.report(f"{name} {words}" + (f" ({report.reason})" if report.reason else ""))
        for warning in report.warnings:
            output.warn(f"{source.origin}:{report.line}: {name}: {warning}")
