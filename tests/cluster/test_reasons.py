"""Every reason for plaintext, provoked, and told by `stat`, `tap` and `edges` of exactly that traffic."""

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import pytest

from mesh.reasons import Plaintext
from tests.cluster.kubectl import DEADLINE_S, eventually, run_autotls
from tests.cluster.matrix import OUTSIDE
from tests.cluster.plaintext import SCENES, Scene, Stage, staged
from tests.cluster.results import Table
from tests.cluster.tapping import Entry, tap
from tests.fixtures_cluster import RunningCluster

pytestmark = pytest.mark.cluster

# Of those that a tap reaches: not the proxies without an identity, or without discovery.
CONNECTED: Final = 9
WINDOW: Final = "5s"
TABLE: Final = Table(
    "Every reason for plaintext, as the commands tell it",
    tuple((scene.reason.value, command) for scene in SCENES for command in ("stat", "edges", "tap")),
)


@dataclass(frozen=True, slots=True)
class Told:
    """What the commands said while the requests of all scenes went on."""

    stage: Stage
    pods: dict[str, Any]
    wide: dict[str, str]
    outside: dict[str, Any]
    edges: dict[tuple[str, str], Any]
    entries: list[Entry]

    def row(self, scene: Scene) -> Any:
        """Of the server; of the client, for what it sent out of the cluster."""
        if scene.reason is Plaintext.EXTERNAL:
            return self.outside[scene.client]
        return self.pods[scene.server]

    def edge(self, scene: Scene) -> Any:
        server = (
            f"{OUTSIDE}:8080" if scene.reason is Plaintext.EXTERNAL else f"{self.stage.home.name}/pod/{scene.server}"
        )
        return self.edges.get((self.stage.client(scene).replace("/", "/pod/"), server))

    def tapped(self, scene: Scene) -> list[Entry]:
        """What was told of requests of that client to that server."""
        home, client = self.stage.home.name, self.stage.client(scene)
        places = {f"{OUTSIDE}:8080", f"{home}/{scene.server}:80", f"{home}/{scene.server}"}
        if scene.reason is not Plaintext.EXTERNAL:
            places.remove(f"{OUTSIDE}:8080")
        return [
            entry
            for entry in self.entries
            if entry["source"]["pod"] == client and places & {*entry["destination"].values()}
        ]

    def missing(self) -> list[str]:
        """The scenes of which some command has not seen anything."""
        return [
            scene.reason.value
            for scene in SCENES
            if not (self.row(scene)["plaintext"] and self.edge(scene) and self.tapped(scene))
        ]


@pytest.fixture(scope="module")
def told(cluster: RunningCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    with staged(cluster, tmp_path_factory.mktemp("requests")) as stage:
        last: list[Told] = []

        def complete() -> Told | None:
            last[:] = [listen(stage)]
            return None if last[0].missing() else last[0]

        yield eventually(complete, lambda: f"something of {last[0].missing()}", deadline_s=DEADLINE_S)


def listen(stage: Stage) -> Told:
    """All commands at once, so that they look at the same requests."""
    home = ("-n", stage.home.name)
    questions = (
        ("stat", "pods", "-o", "json"),
        ("stat", "pods", "-o", "wide"),
        ("stat", "pods", "-o", "json", "--to", OUTSIDE),
        ("edges", "pods", "-o", "json"),
    )

    def ask(question: tuple[str, ...]) -> str:
        done = run_autotls(stage.cluster, *question, *home, "-t", WINDOW)
        assert done.returncode == 0, done.stderr
        return done.stdout

    with tap(stage.cluster, *home, "--max-rps=0", proxies=CONNECTED) as tapped, ThreadPoolExecutor() as pool:
        pods, wide, outside, edges = pool.map(ask, questions)
        entries = tapped.entries()
    return Told(
        stage,
        {row["name"]: row for row in json.loads(pods)["rows"]},
        {line.split()[0]: line for line in wide.splitlines()[1:] if line.strip()},
        {row["name"]: row for row in json.loads(outside)["rows"]},
        {(edge["client"], edge["server"]): edge for edge in json.loads(edges)["edges"]},
        entries,
    )


def ids(scene: Scene) -> str:
    return scene.reason.value


@pytest.mark.parametrize("scene", SCENES, ids=ids)
def test_stat_and_edges_name_the_reason_and_nothing_else(told: Told, scene: Scene) -> None:
    row, edge = told.row(scene), told.edge(scene)
    count = row["requests"] + row["connections"]
    assert row["plaintext"] == {scene.reason: count}
    assert row["tls"] == 0
    other = f"{OUTSIDE}:8080" if scene.reason is Plaintext.EXTERNAL else told.stage.client(scene).replace("/", "/pod/")
    assert row["plaintext_peers"] == {other: count}
    assert (edge["tls"], list(edge["plaintext"])) == (0, [scene.reason])
    assert (edge["client_identities"], edge["server_identities"]) == ([], [])
    if scene.reason is not Plaintext.EXTERNAL:
        shown = re.search(r"(\w+) 100\.0%", told.wide[scene.server])
        assert shown is not None and shown[1] == scene.reason, told.wide[scene.server]
    for command in ("stat", "edges"):
        TABLE.record(scene.reason, command, f"`{scene.reason}`", scene.how)


@pytest.mark.parametrize("scene", SCENES, ids=ids)
def test_tap_names_the_reason_of_every_entry(told: Told, scene: Scene) -> None:
    direction = "inbound" if scene.observed else "outbound"
    seen = {(entry["direction"], entry["tls"], entry["reason"]) for entry in told.tapped(scene)}
    assert seen == {(direction, False, scene.reason)}
    outcome = f"`{scene.reason}`, by the server's proxy" if scene.observed else f"`{scene.reason}`"
    TABLE.record(scene.reason, "tap", outcome, scene.how)


@pytest.mark.parametrize("scene", SCENES, ids=ids)
def test_every_request_was_answered(told: Told, scene: Scene) -> None:
    assert told.stage.requests[scene.reason].failures() == []


def test_an_address_of_the_cluster_has_a_name_to_ask_by(told: Told) -> None:
    home = told.stage.home
    address = home.get("pod", "not-meshed")["status"]["podIP"]
    done = run_autotls(home.cluster, "stat", "pods", "-n", home.name, "-t", "1s", "--to", address)
    assert done.returncode == 1
    assert f"{address} is pod {home.name}/not-meshed" in done.stderr
    assert "--to pod/not-meshed" in done.stderr
