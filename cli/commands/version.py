"""`autotls version`."""

import json
from collections.abc import Mapping

import click

from cli import output
from cli.target import Target, cluster_options
from mesh.version import VERSION


@click.command("version")
@click.option("--client", "client_only", is_flag=True, help="Ask no cluster.")
@click.option("-o", "--output", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
@cluster_options
def command(client_only: bool, form: str, target: Target) -> None:
    """Print the version of this command and, if it can be reached, of the control plane."""
    found: Mapping[str, str] = {} if client_only else _control_plane(target)
    if form == "json":
        output.result(json.dumps({"client": VERSION, "controlPlane": found}, indent=2) + "\n")
        return
    lines = [f"client: {VERSION}"]
    if not client_only:
        lines.append("control plane: " + (found.get("version") or f"unknown ({found['error']})"))
    output.result("\n".join(lines) + "\n")


def _control_plane(target: Target) -> Mapping[str, str]:
    # Not at the top: the client of the API server is most of this command's CPU, and --client needs none.
    from cli.installation import ask_version

    return ask_version(target)
