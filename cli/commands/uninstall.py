"""`autotls uninstall`."""

import asyncio
from dataclasses import dataclass
from typing import Any, Final

import click
import yaml

from cli import output
from cli.errors import CliError
from cli.installation import ANSWER_TIMEOUT_S, find_control_plane
from cli.target import Target, cluster_options
from kube.client import Api, connect
from kube.errors import NotFoundError
from kube.kinds import NAMESPACES, RESOURCES, Bare, Resource, collection_path
from kube.read import get, list_all
from mesh import names
from mesh.pod import Namespace, Pod

# In the order of deletion: no pod is sent to a webhook that is going; the CA loses its rights before what it made
# is deleted, or it would make it again.
_KINDS: Final = (
    "MutatingWebhookConfiguration",
    "ClusterRoleBinding",
    "RoleBinding",
    "Deployment",
    "PodDisruptionBudget",
    "Service",
    "ClusterRole",
    "Role",
    "ServiceAccount",
    "ValidatingAdmissionPolicyBinding",
    "ValidatingAdmissionPolicy",
    "Lease",
    "ConfigMap",
    "Secret",
)
_FROM_CHART: Final = f"app.kubernetes.io/name={names.MANAGED_BY}"
_KEPT: Final = frozenset({names.ROOT_SECRET, names.ISSUER_SECRET})
_HELM_ANNOTATION: Final = "meta.helm.sh/release-name"


@click.command("uninstall")
@click.option(
    "--purge", is_flag=True, help="Also delete the root, the issuer and the namespace: identities start anew."
)
@click.option("-n", "--namespace", metavar="NAME", help="Namespace of the control plane [found by its registration].")
@cluster_options
def command(purge: bool, namespace: str | None, target: Target) -> None:
    """Print what belongs to an installation, for `kubectl delete -f -`; nothing is deleted by this command.

    The chart's objects, and what the CA made in every namespace. The root and issuer Secrets are kept, so that a
    later installation continues with the same root, unless --purge is given. Injected pods keep running.

    \b
      autotls uninstall | kubectl delete -f -
    """
    found, notes = asyncio.run(_find(target, namespace, purge=purge))
    for note in notes:
        output.report(note)
    output.result(yaml.safe_dump_all(found, sort_keys=False, explicit_start=True))


@dataclass(frozen=True, slots=True)
class _Going:
    """What goes by itself: kubectl would not find it any more, and call that an error."""

    owners: frozenset[str]
    """uids of what is deleted; the garbage collector takes along what they own."""
    namespaces: frozenset[str]
    """Those on their way out."""

    def takes(self, item: Bare) -> bool:
        metadata = item.metadata
        owned = any(owner.uid in self.owners for owner in metadata.owner_references or ())
        return owned or metadata.deletion_timestamp is not None or metadata.namespace in self.namespaces


async def _find(target: Target, namespace: str | None, *, purge: bool) -> tuple[list[dict[str, Any]], list[str]]:
    async with connect(kubeconfig=target.kubeconfig, context=target.context) as api:
        where = namespace or await find_control_plane(api) or names.DEFAULT_CONTROL_PLANE_NAMESPACE
        resources = [next(each for each in RESOURCES if each.kind == kind) for kind in _KINDS]
        all_items = [(each, item) for each in resources for item in await _belonging(api, each, where)]
        helm = next((name for _, item in all_items if (name := item.metadata.annotation(_HELM_ANNOTATION))), "")
        going = _Going(
            frozenset(item.metadata.uid for _, item in all_items),
            frozenset(
                n.metadata.name for n in await list_all(api, NAMESPACES, Namespace) if n.metadata.deletion_timestamp
            ),
        )
        found = [
            _reference(resource, item)
            for resource, item in all_items
            if not going.takes(item) and (purge or not (resource.kind == "Secret" and item.metadata.name in _KEPT))
        ]
        if purge and await _is_ours(api, where):
            found.append({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": where}})
        if not found:
            raise CliError(f"nothing of autotls is in namespace {where}", hint="--namespace names the control plane's")
        return found, await _notes(api, where, helm, len(found), purge=purge)


async def _belonging(api: Api, resource: Resource, where: str) -> list[Bare]:
    """Objects of a kind that the chart or the CA of the control plane in `where` made."""
    path = collection_path(resource.api_version, resource.plural)
    in_namespace = collection_path(resource.api_version, resource.plural, where if resource.namespaced else None)
    if resource.kind == "Lease":
        try:
            return [await get(api, f"{in_namespace}/{names.CA_LEASE}", Bare)]
        except NotFoundError:
            return []
    made_by_ca = f"{names.MANAGED_BY_LABEL}={names.MANAGED_BY},{names.CONTROL_PLANE_LABEL}={where}"
    try:
        items = list(await list_all(api, in_namespace, Bare, label_selector=_FROM_CHART))
        if resource.kind in ("Secret", "ConfigMap", "MutatingWebhookConfiguration"):
            items += await list_all(api, path, Bare, label_selector=made_by_ca)
    except NotFoundError:
        # ValidatingAdmissionPolicy is unknown before Kubernetes 1.30.
        return []
    return list({(item.metadata.namespace, item.metadata.name): item for item in items}.values())


def _reference(resource: Resource, item: Bare) -> dict[str, Any]:
    metadata = {"name": item.metadata.name}
    if item.metadata.namespace:
        metadata["namespace"] = item.metadata.namespace
    return {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata}


async def _is_ours(api: Api, where: str) -> bool:
    try:
        namespace = await get(api, f"/api/v1/namespaces/{where}", Namespace, timeout_s=ANSWER_TIMEOUT_S)
    except NotFoundError:
        return False
    return namespace.metadata.label("app.kubernetes.io/name") == names.MANAGED_BY


async def _notes(api: Api, where: str, helm: str, count: int, *, purge: bool) -> list[str]:
    notes = [f"{count} objects of the control plane in namespace {where}"]
    if helm:
        notes.append(f"it was installed by helm: `helm uninstall {helm} -n {where}` keeps helm's own records right")
    if not purge:
        notes.append(f"kept: Secrets {names.ROOT_SECRET} and {names.ISSUER_SECRET} (--purge deletes them)")
    namespaces = await list_all(api, "/api/v1/namespaces", Namespace, label_selector=names.INJECT_LABEL)
    for each in namespaces:
        notes.append(f"a label stays: kubectl label namespace {each.metadata.name} {names.INJECT_LABEL}-")
    pods = await list_all(api, "/api/v1/pods", Pod, label_selector=f"{names.MESH_LABEL}={where}")
    if pods:
        used = ", ".join(sorted({pod.metadata.namespace for pod in pods}))
        notes.append(f"{len(pods)} injected pods keep their sidecars until they are restarted, in: {used}")
    return notes
