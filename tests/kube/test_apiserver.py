"""The client, the reflector and the election against a real API server that is killed, frozen and restarted."""

import asyncio
import base64
import json
import signal
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cluster.apiserver import ApiServer
from kube import config, errors
from kube.apply import apply, create, delete, object_path, path_of
from kube.client import Api, connect
from kube.events import Recorder, Regarding
from kube.kinds import Bare, ConfigMap, Lease, Secret, collection_path
from kube.lease import Elector, LeaseTiming
from kube.read import get, list_all, pages
from kube.reflector import Reflector
from tests.kube.candidates import Line
from tests.kube.conftest import compact, config_map, eventually, kubeconfig_with, restart, signal_server

pytestmark = pytest.mark.apiserver

MANY = 1200


class Mirror:
    """A reflector of a namespace's ConfigMaps at work, on a line that can be cut."""

    def __init__(self, api: Api, namespace: str) -> None:
        self.line = Line(api)
        self.changes: list[tuple[str, bool]] = []
        self.reflector = Reflector(
            self.line,
            collection_path("v1", "configmaps", namespace),
            ConfigMap,
            on_change=lambda key, item: self.changes.append((key, item is not None)),
            page_size=500,
        )

    async def __aenter__(self) -> "Mirror":
        self._task = asyncio.create_task(self.reflector.run())
        await asyncio.wait_for(self.reflector.synced.wait(), 240)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task


async def create_many(api: Api, namespace: str, count: int) -> None:
    numbers = iter(range(count))

    async def worker() -> None:
        for number in numbers:
            await create(api, config_map(f"map-{number:05}", namespace, x="1"), manager="test", timeout_s=60)

    async with asyncio.TaskGroup() as group:
        for _ in range(16):
            group.create_task(worker())


async def test_the_reflector_mirrors_pages_and_survives_kill_restart_and_compaction(
    server: ApiServer, api: Api, namespace: str
) -> None:
    await create_many(api, namespace, MANY)
    async with Mirror(api, namespace) as mirror:
        store = mirror.reflector.store
        assert len(store) == len(mirror.changes) == MANY
        listed = [page async for page in pages(api, collection_path("v1", "configmaps", namespace), ConfigMap)]
        assert [len(page.items) for page in listed] == [500, 500, 200]

        # Killed and started again: nothing changed, so nothing is reported, and what comes after is seen.
        server.kill()
        await eventually("the loss is noticed", lambda: mirror.reflector.healthy_since is None)
        assert len(store) == MANY
        await restart(server)
        await create(api, config_map("after-restart", namespace), manager="test")
        await eventually("the change is seen", lambda: f"{namespace}/after-restart" in store)
        assert mirror.changes[MANY:] == [(f"{namespace}/after-restart", True)]

        # Cut off while history is compacted: 410, a new list, and only what really changed.
        before, relists = len(mirror.changes), mirror.reflector.relists
        mirror.line.cut()
        server.kill()
        await eventually("the loss is noticed", lambda: mirror.reflector.healthy_since is None)
        await restart(server)
        await apply(api, config_map("map-00001", namespace, x="2"), manager="test")
        await delete(api, object_path("v1", "configmaps", "map-00000", namespace))
        await asyncio.to_thread(compact, server)
        server.kill()
        await restart(server)
        mirror.line.mend()
        await eventually("it lists again", lambda: mirror.reflector.relists > relists)
        await eventually("both changes are seen", lambda: len(mirror.changes) >= before + 2)
        assert mirror.changes[before:] == [(f"{namespace}/map-00000", False), (f"{namespace}/map-00001", True)]
        assert store[f"{namespace}/map-00001"].data == {"x": "2"}


async def test_a_version_that_was_compacted_is_gone(server: ApiServer, api: Api, namespace: str) -> None:
    path = collection_path("v1", "configmaps", namespace)
    await create_many(api, namespace, 3)
    await asyncio.to_thread(compact, server)
    server.kill()
    await restart(server)
    query = (("watch", "1"), ("resourceVersion", "2"), ("allowWatchBookmarks", "true"))
    with pytest.raises(errors.GoneError):
        async with api.lines(path, query=query, timeout_s=120) as lines:
            async for line in lines:
                event = msgspec.json.decode(line)
                assert event["type"] == "ERROR"
                raise errors.error_from_status(
                    event["object"]["code"], msgspec.convert(event["object"], errors.Status), path=path
                )


def secret(namespace: str, **data: str) -> dict[str, Any]:
    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
    metadata = {"name": "identity", "namespace": namespace, "labels": {"app": "x"}}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque", "data": encoded}


async def test_applying_the_same_again_writes_nothing(api: Api, namespace: str) -> None:
    async def version() -> str:
        return (await get(api, path_of(secret(namespace)), Bare)).metadata.resource_version

    await apply(api, secret(namespace, key="one"), manager="autotls-ca")
    first = await version()
    await apply(api, secret(namespace, key="one"), manager="autotls-ca")
    assert await version() == first
    await apply(api, secret(namespace, key="two"), manager="autotls-ca")
    assert await version() != first


async def test_fields_of_another_manager_are_a_conflict_unless_forced(api: Api, namespace: str) -> None:
    await apply(api, secret(namespace, key="one"), manager="autotls-ca")
    with pytest.raises(errors.ConflictError, match="autotls-ca") as caught:
        await apply(api, secret(namespace, key="two"), manager="other", force=False)
    assert "data.key" in str(caught.value)
    assert "FieldManagerConflict" in caught.value.causes
    await apply(api, secret(namespace, key="two"), manager="other")
    stored = await get(api, path_of(secret(namespace)), Secret)
    assert stored.decoded() == {"key": b"two"}


async def test_writes_and_deletes_hold_only_for_the_version_they_name(api: Api, namespace: str) -> None:
    await create(api, secret(namespace, key="one"), manager="test")
    with pytest.raises(errors.AlreadyExistsError):
        await create(api, secret(namespace, key="one"), manager="test")
    old = (await get(api, path_of(secret(namespace)), Bare)).metadata
    await apply(api, secret(namespace, key="two"), manager="test")
    stale = secret(namespace, key="three")
    stale["metadata"] |= {"resourceVersion": old.resource_version}
    with pytest.raises(errors.ConflictError):
        await apply(api, stale, manager="test")
    with pytest.raises(errors.ConflictError):
        await delete(api, path_of(stale), resource_version=old.resource_version)
    with pytest.raises(errors.ConflictError):
        await delete(api, path_of(stale), uid="another")
    await delete(api, path_of(stale), uid=old.uid)
    with pytest.raises(errors.NotFoundError):
        await delete(api, path_of(stale))
    # With its uid, an object that is gone is not made again; a version alone does not prevent that.
    with pytest.raises(errors.ConflictError):
        await apply(api, {**stale, "metadata": stale["metadata"] | {"uid": old.uid}}, manager="test")
    await apply(api, stale, manager="test")


@pytest.mark.parametrize(
    "data",
    [{"tls.key": "hunter2hunter2!"}, {"tls.key": ["hunter2"]}, {"bad key": "aHVudGVyMg=="}, "hunter2"],
    ids=["not base64", "a list", "a bad name", "no map"],
)
async def test_a_refused_secret_never_shows_its_values(api: Api, namespace: str, data: Any) -> None:
    broken = {**secret(namespace), "data": data}
    for write in (create, apply):
        with pytest.raises(errors.ApiError) as caught:
            await write(api, broken, manager="test")
        assert "hunter2" not in str(caught.value)
        assert "aHVudGVy" not in str(caught.value)


async def test_a_terminating_namespace_refuses_with_its_own_cause(api: Api, namespace: str) -> None:
    # No controller runs here, so the namespace stays in its last state for ever.
    await delete(api, object_path("v1", "namespaces", namespace))
    with pytest.raises(errors.ForbiddenError) as caught:
        await create(api, secret(namespace, key="one"), manager="test")
    assert caught.value.namespace_terminating


async def test_a_pods_token_an_exec_plugin_and_a_wrong_token_are_understood(
    server: ApiServer, api: Api, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "web", "namespace": namespace}}
    await create(api, account, manager="test")
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    answer = await api.request("POST", f"{path_of(account)}/token", body=msgspec.json.encode(request))
    token = msgspec.json.decode(answer)["status"]["token"]

    # In a Pod: known, but without rights.
    (tmp_path / "token").write_text(token)
    (tmp_path / "ca.crt").write_bytes(server.authority.read_bytes())
    monkeypatch.setattr(config, "IN_POD", tmp_path)
    host, port = server.url.removeprefix("https://").split(":")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)
    async with connect() as pod:
        with pytest.raises(errors.ForbiddenError, match=f"system:serviceaccount:{namespace}:web"):
            await list_all(pod, "/api/v1/secrets", Secret)

    # The same token from an exec plugin, as cloud providers hand them out.
    credential = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": {"token": token, "expirationTimestamp": "2099-01-01T00:00:00Z"},
    }
    plugin = tmp_path / "plugin"
    plugin.write_text(f"#!/bin/sh\ncat <<'EOT'\n{json.dumps(credential)}\nEOT\n")
    plugin.chmod(0o755)
    user = {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": str(plugin)}}
    async with connect(kubeconfig=str(kubeconfig_with(tmp_path / "exec.config", server, user))) as cloud:
        with pytest.raises(errors.ForbiddenError, match=f"system:serviceaccount:{namespace}:web"):
            await list_all(cloud, "/api/v1/secrets", Secret)

    wrong = kubeconfig_with(tmp_path / "wrong.config", server, {"token": "wrong"})
    async with connect(kubeconfig=str(wrong)) as stranger:
        with pytest.raises(errors.UnauthorizedError):
            await list_all(stranger, "/api/v1/secrets", Secret)


async def test_events_are_accepted_and_counted_by_the_real_validation(api: Api, namespace: str) -> None:
    web = Regarding("v1", "ServiceAccount", "web", namespace, "8a4c2f0e-0000-4000-8000-000000000001")
    path = collection_path("events.k8s.io/v1", "events", namespace)

    async def stored() -> list[dict[str, Any]]:
        return msgspec.json.decode(await api.request("GET", path))["items"]

    async def said(recorder: Recorder, times: int, count: int) -> None:
        for _ in range(times):
            recorder.emit(web, "ForeignSecret", "not ours", "Warning", "Issue")
        task = asyncio.create_task(recorder.run())
        async with asyncio.timeout(120):
            while (items := await stored()) == [] or (items[0].get("series") or {}).get("count", 1) != count:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert len(items) == 1
        task.cancel()

    await said(Recorder(api, "autotls.io/ca", instance="ca-0"), 1, 1)
    await said(Recorder(api, "autotls.io/ca", instance="ca-1"), 3, 4)


class Worker:
    """A candidate on the real server; `shifts` are the times of its work on one clock."""

    def __init__(self, api: Api, namespace: str, name: str) -> None:
        self.shifts: list[tuple[float, float]] = []
        self.working = False
        self.elector = Elector(
            api,
            namespace=namespace,
            name="autotls-ca",
            identity=name,
            timing=LeaseTiming(duration_s=9, renew_deadline_s=6, retry_period_s=0.5),
        )

    def start(self) -> "Worker":
        self._task = asyncio.create_task(self.elector.run(self._work))
        return self

    async def _work(self) -> None:
        clock = asyncio.get_running_loop().time
        started, self.working = clock(), True
        try:
            await asyncio.sleep(1e6)
        finally:
            self.working = False
            self.shifts.append((started, clock()))

    async def stop(self) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task


async def test_two_candidates_never_work_at_once_while_the_api_server_dies_freezes_and_returns(
    server: ApiServer, api: Api, namespace: str
) -> None:
    workers = [Worker(api, namespace, name).start() for name in ("one", "two")]

    def leading() -> int:
        return sum(worker.working for worker in workers)

    await eventually("one leads", lambda: leading() == 1)
    server.kill()
    await eventually("work ends without an API server", lambda: leading() == 0)
    await restart(server)
    await eventually("one leads again", lambda: leading() == 1)

    signal_server(server, signal.SIGSTOP)
    await eventually("work ends while requests hang", lambda: leading() == 0)
    signal_server(server, signal.SIGCONT)
    await eventually("one leads again", lambda: leading() == 1)

    leader = next(worker for worker in workers if worker.working)
    other = next(worker for worker in workers if worker is not leader)
    before = asyncio.get_running_loop().time()
    await leader.stop()
    await eventually("the other takes the released Lease", lambda: other.working)
    handed_over_s = asyncio.get_running_loop().time() - before
    await other.stop()
    lease = await get(api, object_path("coordination.k8s.io/v1", "leases", "autotls-ca", namespace), Lease)
    assert lease.spec.holder_identity == ""
    assert lease.spec.lease_transitions
    shifts = sorted(shift for worker in workers for shift in worker.shifts)
    assert all(end <= start for (_, end), (start, _) in pairwise(shifts))
    print(f"handed over in {handed_over_s:.2f} s, transitions {lease.spec.lease_transitions}")
