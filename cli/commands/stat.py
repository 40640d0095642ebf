"""`autotls stat`."""

import click

from cli.errors import CliError
from cli.measuring import Question, answer, question_options
from cli.resources import KINDS_HELP, Resources, parse_peer, parse_resources
from cli.tables import stat as tables
from telemetry.measurement import Measurement
from telemetry.rows import Kind, Peer, Selection, destination_of, pods_of, table


@click.command(
    "stat",
    epilog=f"Kinds: {KINDS_HELP}. What each column means, and what * says: docs/telemetry.md.",
)
@click.argument("resources", nargs=-1, metavar="[KIND[/NAME] [NAME]...]")
@click.option("--to", metavar="KIND/NAME|ADDRESS", help="Only what they sent to it, as their own proxies counted.")
@click.option("--from", "sent_by", metavar="KIND/NAME", help="Only what came from it, as its proxies counted.")
@question_options
def command(resources: tuple[str, ...], to: str | None, sent_by: str | None, question: Question) -> None:
    """Show how much traffic workloads received, how it went, and which share was mutual TLS.

    Counts for a window (-t) and then writes a line for each workload. Without KIND: deployments.
    """
    if to and sent_by:
        raise click.UsageError("--to and --from cannot both be given")
    wanted = parse_resources(resources)
    if to and wanted.kind in (Kind.SERVICE, Kind.AUTHORITY):
        raise click.UsageError(f"a {wanted.kind} sends nothing: use --from, or ask for the workloads with --to")
    here = question.namespace or ""
    peers = [parse_peer(text, here) if text else None for text in (to, sent_by)]
    if peers[1] and peers[1].kind is None:
        raise click.UsageError("an address outside of the cluster has no proxy that counts: --from names pods")
    if any(peer and not peer.namespace and peer.kind not in (None, Kind.NAMESPACE) for peer in peers):
        raise click.UsageError("with --all-namespaces, --to and --from can only name a namespace")

    def show(found: Measurement) -> str:
        return _table(found, question, wanted, *peers)

    answer(question, show)


def _table(found: Measurement, question: Question, wanted: Resources, to: Peer | None, sent_by: Peer | None) -> str:
    for peer in (to, sent_by):
        if peer:
            _require(peer, found, counted=peer is to)
    namespace = None if wanted.kind is Kind.NAMESPACE else question.namespace
    rows = table(wanted.kind, found.book, found.seconds, Selection(namespace, wanted.names), to=to, sent_by=sent_by)
    where = f" in namespace {namespace}" if namespace else ""
    missing = sorted(set(wanted.names) - {row.name for row in rows.rows})
    if missing:
        what = "has had no request" if wanted.kind is Kind.AUTHORITY else "has no pods, or is not there"
        raise CliError(f"{wanted.kind} {missing[0]}{where} {what}", hint="-n names another namespace, -A shows all")
    if question.form == "json":
        return tables.as_json(rows, found.notes)
    if not rows.rows:
        return f"no {wanted.kind} with pods{where}\n"
    return tables.as_text(rows, wide=question.wide, namespaces=question.namespace is None)


def _require(peer: Peer, found: Measurement, *, counted: bool) -> None:
    """Raises CliError where --to or --from names what is not there, or what proxies cannot tell apart."""
    if peer.kind is None:
        _require_outside(peer.name, found)
        return
    name = f"{peer.kind}/{peer.name}"
    pods = pods_of(peer, found.cluster)
    if not pods and peer.kind is not Kind.SERVICE:
        raise CliError(f"{name} has no pods, or is not there", hint="-n names another namespace")
    if counted and peer.kind not in (Kind.NAMESPACE, Kind.SERVICE) and not destination_of(peer, found.book).names:
        raise CliError(
            f"proxies count what they send by workload, and {name} is only a part of one",
            hint=f"--to {pods[0].workload.kind}/{pods[0].workload.name}",
        )


def _require_outside(address: str, found: Measurement) -> None:
    """Raises CliError for an address of the cluster: what is there is counted by its name."""
    if pod := found.cluster.by_address.get(address):
        raise CliError(f"{address} is pod {pod.key}", hint=f"--to {pod.workload.kind}/{pod.workload.name}")
    for (virtual, _), service in found.cluster.by_virtual_address.items():
        if virtual == address:
            raise CliError(f"{address} is service {service.key}", hint=f"--to svc/{service.name}")
