"""`autotls version`."""

import asyncio
import json
from collections.abc import Mapping

import click
import msgspec

from cli import output
from cli.installation import ANSWER_TIMEOUT_S, find_control_plane
from cli.target import Target, cluster_options
from kube.client import connect
from mesh import names
from mesh.errors import AutotlsError
from mesh.pod import ObjectMeta, Wire
from mesh.version import VERSION

_VERSION_LABEL = "app.kubernetes.io/version"


class _Deployment(Wire, frozen=True):
    metadata: ObjectMeta


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


def _control_plane(target: Target) -> dict[str, str]:
    try:
        return asyncio.run(_ask(target))
    except TimeoutError:
        return {"error": f"no answer within {ANSWER_TIMEOUT_S:g} s"}
    except AutotlsError as error:
        return {"error": error.message}


async def _ask(target: Target) -> dict[str, str]:
    async with connect(kubeconfig=target.kubeconfig, context=target.context) as api, asyncio.timeout(ANSWER_TIMEOUT_S):
        where = await find_control_plane(api)
        if where is None:
            return {"error": "autotls is not installed"}
        path = f"/apis/apps/v1/namespaces/{where}/deployments/{names.WEBHOOK}"
        deployment = msgspec.json.decode(await api.request("GET", path), type=_Deployment)
        return {"version": deployment.metadata.label(_VERSION_LABEL) or "not labelled", "namespace": where}
