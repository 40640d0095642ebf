"""Whom an identity or a Service's address names, when that is one workload, several, or none."""

from telemetry.parties import of_destination, of_identity
from tests.telemetry.scenes import cluster_of, deployment_pod, identity, pod_object, service_object

CLUSTER = cluster_of(
    [
        deployment_pod("web", "10.0.0.2", 0),
        deployment_pod("web", "10.0.0.3", 1),
        deployment_pod("web", "10.0.1.2", namespace="other"),
        pod_object("one", "10.0.0.4", account="shared", labels={"app": "both"}),
        pod_object("two", "10.0.0.5", account="shared", labels={"app": "both"}),
    ],
    [
        service_object("web", "10.96.0.10"),
        service_object("both", "10.96.0.11"),
        service_object("none", "10.96.0.12"),
    ],
)


def test_an_identity_is_the_workload_that_runs_as_it() -> None:
    assert of_identity(identity("web"), CLUSTER).name == "shop/deployment/web"
    assert of_identity(identity("web", "other"), CLUSTER).name == "other/deployment/web"


def test_an_identity_of_several_workloads_or_of_none_is_a_service_account() -> None:
    for account in ("shared", "gone"):
        party = of_identity(identity(account), CLUSTER)
        assert (party.name, party.namespace, party.workload) == (f"shop/serviceaccount/{account}", "shop", None)


def test_what_is_no_identity_of_a_service_account_is_only_a_name() -> None:
    assert of_identity("spiffe://cluster.local/somebody", CLUSTER).name == "spiffe://cluster.local/somebody"


def test_a_services_address_is_the_workload_behind_it_or_the_service() -> None:
    named = {port: of_destination(f"10.96.0.{port}:80", "passthrough", CLUSTER).name for port in (10, 11, 12)}
    assert named == {10: "shop/deployment/web", 11: "shop/service/both", 12: "shop/service/none"}
