"""A real Prometheus on the loopback, for as long as a test needs it."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import aiohttp
import yaml

from cluster.ports import reserved
from telemetry import promql
from telemetry.prometheus import Ask, asking
from telemetry.promql import PrometheusError
from tests.fakes.kubeapi import FakeApi

DEADLINE_S: Final = 180.0


@asynccontextmanager
async def prometheus(
    folder: Path,
    *jobs: dict[str, Any],
    enter: Sequence[str] = (),
    program: str | Path = "prometheus",
    port: int | None = None,
) -> AsyncGenerator[Ask]:
    """How to ask it. It looks at every target of `jobs` once a second, from the network that `enter` leads to.

    `program`: Debian's, unless another one is named. `port` is where it listens.
    """
    with reserved() as own:
        port = port or own
        (folder / "prometheus.yml").write_text(
            yaml.safe_dump({"global": {"scrape_interval": "1s", "scrape_timeout": "1s"}, "scrape_configs": list(jobs)})
        )
        # A test run that is killed must not leave it behind.
        argv = ["setpriv", "--pdeathsig", "KILL", *enter, str(program), f"--config.file={folder}/prometheus.yml"]
        argv += [f"--storage.tsdb.path={folder}/data", f"--web.listen-address=127.0.0.1:{port}"]
        url = f"http://127.0.0.1:{port}"
        with (folder / "log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(*argv, stdout=log, stderr=log)
        try:
            async with aiohttp.ClientSession() as session:
                ask = _inside(enter, url) if enter else asking(FakeApi(), url, session)
                await _until(lambda: _answers(ask), f"Prometheus, see {folder}/log")
                yield ask
        finally:
            process.kill()
            await process.wait()


async def _until(check: Callable[[], Awaitable[bool]], what: str) -> None:
    end = time.monotonic() + DEADLINE_S
    while not await check():
        assert time.monotonic() < end, f"not within {DEADLINE_S:.0f} s: {what}"
        await asyncio.sleep(0.1)


def _inside(enter: Sequence[str], url: str) -> Ask:
    """Asks from a network that this process is not in."""

    async def ask(query: str, time: str) -> bytes:
        data = ["--data-urlencode", f"query={query}", *(["--data-urlencode", f"time={time}"] if time else [])]
        argv = [*enter, "curl", "--silent", "--max-time", "30", *data, f"{url}/api/v1/query"]
        process = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE)
        return (await process.communicate())[0]

    return ask


async def _answers(ask: Ask) -> bool:
    try:
        return promql.scalar(await ask(promql.NOW, "")) is not None
    except PrometheusError:
        return False


async def instant_of(ask: Ask, holds: Callable[[str], Awaitable[bool]], what: str) -> float:
    """A time of Prometheus' clock at which `holds`, given that time, is true."""
    found: list[float] = []

    async def now_holds() -> bool:
        now = promql.scalar(await ask(promql.NOW, ""))
        assert now is not None
        if await holds(f"{now:.3f}"):
            found.append(round(now, 3))
        return bool(found)

    await _until(now_holds, what)
    return found[0]


def at(ask: Ask, instant: float) -> Ask:
    """Asks as if it were that time, so that a test decides where a window ends."""

    async def pinned(query: str, time: str) -> bytes:
        if query == promql.NOW:
            return f'{{"status":"success","data":{{"result":[{instant},"{instant}"]}}}}'.encode()
        return await ask(query, time)

    return pinned
