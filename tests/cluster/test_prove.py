"""`identity` and `prove` on the real cluster: meshed, unmeshed, with a broken identity, and while one is renewed."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mesh import names
from tests.cluster.kubectl import OPTED_IN, Object, Space, eventually, run_autotls, space
from tests.cluster.plane import a_pod, an_account
from tests.fixtures_cluster import RunningCluster

pytestmark = pytest.mark.cluster

Steps = dict[str, dict[str, str]]


def a_service(name: str) -> Object:
    port = {"name": "tcp", "port": 7000, "targetPort": 8080}
    return {
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": [port]},
    }  # fmt: skip


@pytest.fixture(scope="module")
def home(cluster: RunningCluster) -> Iterator[Space]:
    """`web` and `client` are meshed, `plain` opted out, `guest` is meshed and its Secret is somebody else's."""
    with space(cluster, "prove") as made:
        foreign = names.identity_secret_name("guest")
        made.kubectl("create", "secret", "generic", foreign, "--from-literal=tls.crt=mine")
        accounts = ("web", "client", "guest")
        made.apply(*map(an_account, accounts))
        label = next(iter(OPTED_IN.items()))
        made.kubectl("label", "namespace", made.name, "=".join(label))
        for account in accounts:
            eventually(lambda a=account: made.find("secret", names.identity_secret_name(a)), f"identity of {account}")
        out = {names.INJECT_LABEL: names.INJECT_DISABLED}
        pods = [(account, account, {"app": account}) for account in accounts] + [
            ("plain", "web", {"app": "plain"} | out)
        ]
        made.apply(*(a_pod(cluster, name, account, labels=labels) for name, account, labels in pods))
        made.apply(*map(a_service, ("web", "plain", "guest")))
        made.wait_ready(*(name for name, _, _ in pods))
        yield made


def prove(home: Space, pod: str, to: str) -> tuple[int, Steps]:
    """Exit code, and the steps by their id."""
    done = run_autotls(home.cluster, "prove", f"{home.name}/{pod}", f"--to={to}", "--output=json")
    assert done.stdout, done.stderr
    found = json.loads(done.stdout)
    assert found["proven"] == (done.returncode == 0)
    return done.returncode, {each["id"]: each for each in found["steps"]}


def proved(home: Space, pod: str, to: str, wanted: Callable[[int, Steps], bool]) -> Steps:
    """The steps once they are as wanted: an identity may come up to 90 s after its pod, and a proxy that has just
    started, or is busy, does not answer in time."""
    last: list[object] = []

    def found() -> Steps | None:
        code, steps = prove(home, pod, to)
        last[:] = [code, steps]
        return steps if wanted(code, steps) else None

    return eventually(found, lambda: f"{pod} to {to}: {last}")


def not_ok(steps: Steps) -> dict[str, str]:
    return {key: each["verdict"] for key, each in steps.items() if each["verdict"] != "ok"}


def identity(home: Space, pod: str) -> tuple[int, dict[str, Any]]:
    done = run_autotls(home.cluster, "identity", pod, f"--namespace={home.name}", "--output=json")
    assert done.stdout, done.stderr
    (found,) = json.loads(done.stdout)
    return done.returncode, found


def test_between_meshed_pods_it_is_proven_and_each_step_says_what_was_seen(home: Space) -> None:
    steps = proved(home, "client", "web", lambda code, steps: code == 0 and not not_ok(steps))
    web = home.get("pod", "web")["status"]["podIP"]
    assert f"given to {web}:{names.INBOUND_TLS_PORT}" in steps["connection"]["message"]
    assert steps["server-identity"]["message"] == f"spiffe://cluster.local/ns/{home.name}/sa/web"
    assert steps["client-identity"]["message"].startswith(f"spiffe://cluster.local/ns/{home.name}/sa/client,")
    assert steps["tls"]["message"].startswith("mutual TLS, TLSv1.")


def test_a_proof_leaves_nothing_behind_in_the_proxys_container(home: Space) -> None:
    prove(home, "client", "web")
    script = "for f in /proc/[0-9]*/comm; do read -r name < $f && echo $name; done"

    def nothing() -> bool:
        return "nc" not in home.exec("client", "bash", "-c", script, container=names.PROXY_CONTAINER).split()

    eventually(nothing, "no nc is left")


def test_an_unmeshed_server_and_an_unmeshed_client_are_told_apart(home: Space) -> None:
    wanted = {"configuration": "warn", "server-identity": "skip", "tls": "fail"}
    steps = proved(home, "client", "plain", lambda code, steps: code == 1 and not_ok(steps) == wanted)
    assert "not_meshed" in steps["tls"]["message"]
    code, steps = prove(home, "plain", "web")
    assert code == 1
    assert list(steps) == ["pod"]
    assert steps["pod"]["message"] == "it has no sidecar (not_meshed)"


def test_a_broken_identity_is_found_from_both_sides(home: Space) -> None:
    def unserved() -> bool:
        code, found = identity(home, "guest")
        return (code, found["state"], found["served"]) == (1, "not_served", None)

    eventually(unserved, lambda: f"nothing is served: {identity(home, 'guest')}")
    steps = proved(home, "guest", "web", lambda code, steps: code == 1 and "client-identity" in steps)
    assert steps["client-identity"]["verdict"] == "fail"
    assert "no_identity_client" in steps["client-identity"]["message"]

    def in_plaintext(code: int, steps: Steps) -> bool:
        return code == 1 and steps.get("tls", {}).get("message", "").startswith("plaintext (")

    assert proved(home, "client", "guest", in_plaintext)["tls"]["hint"]


def test_a_renewed_certificate_lags_and_then_is_served(home: Space) -> None:
    secret = names.identity_secret_name("web")
    before = eventually(lambda: (found := identity(home, "web")[1])["state"] == "match" and found, "a match")

    def renewed() -> dict[str, Any] | None:
        """The kubelet may look at the very moment: then once more."""
        home.kubectl("delete", "secret", secret)
        eventually(lambda: home.find("secret", secret), "a new identity")
        code, found = identity(home, "web")
        return found if (code, found["state"]) == (0, "arriving") else None

    lagging = eventually(renewed, "a certificate that lags behind its Secret")
    assert lagging["issued"]["serial"] not in (before["issued"]["serial"], lagging["served"]["serial"])
    assert lagging["lagSeconds"] is not None

    after = eventually(lambda: (found := identity(home, "web")[1])["state"] == "match" and found, "the new one served")
    assert after["served"] == lagging["issued"]
    proved(home, "client", "web", lambda code, _: code == 0)


def test_a_key_is_in_no_output(home: Space) -> None:
    keys = [home.get("secret", names.identity_secret_name(account))["data"]["tls.key"] for account in ("web", "client")]
    shown = json.dumps([identity(home, "web"), prove(home, "client", "web")])
    assert not [key for key in keys if key in shown]
    assert "PRIVATE KEY" not in shown
