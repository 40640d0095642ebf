"""`autotls install`."""

from typing import Final

import click
import yaml

from cli import chart, output
from mesh import names

# Namespaces that have other pods: a PodSecurity label on them could refuse those.
_SHARED: Final = ("default", "kube-system", "kube-public")


@click.command("install")
@click.option("--tls", "mode", type=click.Choice(chart.MODES), help="Default mode of injected pods [optional].")
@click.option("-n", "--namespace", default=names.DEFAULT_CONTROL_PLANE_NAMESPACE, show_default=True, metavar="NAME")
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="A value of the chart, as helm takes it.")
@click.option("-f", "--values", "files", multiple=True, metavar="FILE", help="Values of the chart in a YAML file.")
@click.option("--kube-version", metavar="VERSION", help="Kubernetes version of the cluster, if it is older than 1.30.")
@click.option("--no-namespace", is_flag=True, help="Print no Namespace object: it exists already.")
@click.option("--no-helm", is_flag=True, help="Use the manifest shipped with autotls even if helm is on PATH.")
def command(  # noqa: PLR0917 - click passes options by name
    mode: str | None,
    namespace: str,
    sets: tuple[str, ...],
    files: tuple[str, ...],
    kube_version: str | None,
    no_namespace: bool,
    no_helm: bool,
) -> None:
    """Print the manifests that install autotls, the same objects as those of its Helm chart.

    They are rendered by the helm on PATH; without it a manifest shipped with autotls is used, which takes only
    mode, trustDomain, image.* and replicas. Nothing is read from or written to a cluster.

    \b
      autotls install --tls=optional | kubectl apply -f -
    """
    if mode:
        sets = (*sets, f"mode={mode}")
    helm = None if no_helm else chart.find_helm()
    text = chart.render(chart.Wanted(namespace, sets, files, kube_version), helm=helm)
    output.report(f"rendered by {helm or 'the manifest shipped with autotls'}, for namespace {namespace}")
    if not no_namespace and namespace not in _SHARED:
        text = namespace_manifest(namespace) + text
    output.result(text)


def namespace_manifest(namespace: str) -> str:
    """The control plane's namespace; its pods meet PodSecurity's strictest level, so that is enforced."""
    modes = ("enforce", "audit", "warn")
    labels = {"app.kubernetes.io/name": "autotls"}
    labels |= {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in modes}
    value = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}}
    return "---\n" + yaml.safe_dump(value, sort_keys=False)
