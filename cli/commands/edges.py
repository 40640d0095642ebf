"""`autotls edges`."""

import click

from cli.measuring import Question, answer, question_options
from cli.resources import parse_kind
from cli.tables import edges as tables
from telemetry.edges import edges
from telemetry.measurement import Measurement
from telemetry.rows import Kind

_WITHOUT_ENDS = (Kind.SERVICE, Kind.AUTHORITY, Kind.REPLICASET)


@click.command("edges", epilog="Kinds: those of workloads, and namespaces. What is counted: docs/telemetry.md.")
@click.argument("kind", default="deployments", metavar="[KIND]")
@question_options
def command(kind: str, question: Question) -> None:
    """Show who talks to whom, with which identities, and which share is mutual TLS or why it is not.

    Counts for a window (-t). An edge is shown when one of its ends is of KIND (deployments) and of the namespace.
    """
    wanted = parse_kind(kind)
    if wanted in _WITHOUT_ENDS:
        raise click.UsageError(f"an edge does not end at a {wanted}: ask for workloads or namespaces")

    def show(found: Measurement) -> str:
        listed = edges(found.book, wanted, question.namespace)
        if question.form == "json":
            return tables.as_json(listed, found.seconds, found.notes)
        if not listed:
            where = f" of namespace {question.namespace}" if question.namespace else ""
            return f"no traffic of {wanted}s{where} was seen\n"
        complete = all(pod.sees_all for pod in found.cluster.pods if pod.meshed)
        return tables.as_text(listed, found.seconds, wide=question.wide, complete=complete)

    answer(question, show)
