"""One look at many proxies: plain HTTP to each pod's own address, some at a time. The edge.

Nothing secret is there: port 15120 answers everybody in the cluster with counters and nothing else. So no right of the
API server's is needed, and the process holds none but reading.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Final

import aiohttp

AT_ONCE: Final = 32
TIMEOUT_S: Final = 4.0
# 6,000 series of 400 bytes (mesh.series.LIMITS) are 2.4 MB; a pod that sends more is no proxy of ours.
MAX_BYTES: Final = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Target:
    """Where to look: `key` is the caller's name for it."""

    key: str
    address: str
    port: int
    path: str = "/metrics"

    @property
    def url(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"http://{host}:{self.port}{self.path}"


class ScrapeError(Exception):
    """A proxy did not answer, or not as one."""


async def scrape(session: aiohttp.ClientSession, target: Target) -> bytes:
    """The text of its metrics. Raises ScrapeError."""
    limits = aiohttp.ClientTimeout(total=TIMEOUT_S)
    try:
        async with session.get(target.url, timeout=limits, allow_redirects=False) as answer:
            if answer.status != 200:
                raise ScrapeError(f"answered {answer.status}")
            text = bytearray()
            async for chunk in answer.content.iter_any():
                text += chunk
                if len(text) > MAX_BYTES:
                    raise ScrapeError(f"more than {MAX_BYTES} bytes")
            return bytes(text)
    except TimeoutError as error:
        raise ScrapeError(f"no answer within {TIMEOUT_S:g} s") from error
    except (aiohttp.ClientError, OSError) as error:
        raise ScrapeError(type(error).__name__) from error


async def scrape_all(
    session: aiohttp.ClientSession, targets: Iterable[Target]
) -> AsyncIterator[tuple[Target, bytes | ScrapeError]]:
    """Each target's text or why there is none, as they come; at most AT_ONCE are asked at a time."""
    waiting = iter(tuple(targets))
    asked: dict[asyncio.Task[bytes], Target] = {}

    def fill() -> None:
        for target in waiting:
            asked[asyncio.create_task(scrape(session, target), name="scrape")] = target
            if len(asked) >= AT_ONCE:
                return

    fill()
    try:
        while asked:
            done, _ = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                target, error = asked.pop(task), task.exception()
                if error is None:
                    yield target, task.result()
                elif isinstance(error, ScrapeError):
                    yield target, error
                else:
                    raise error
            fill()
    finally:
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
