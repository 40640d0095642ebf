"""Faults of an API server, injected before a request is answered."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from kube import errors


@dataclass(slots=True)
class Faults:
    """What goes wrong next."""

    latency_s: float = 0.0
    before: Callable[[str, str, bytes | None], Awaitable[None]] | None = None
    _refusals: list[errors.ApiError] = field(default_factory=list)
    down: bool = False

    def refuse(self, times: int, error: errors.ApiError | None = None) -> None:
        """The next `times` requests fail with `error`, by default as if nobody listened."""
        self._refusals += [error or errors.UnreachableError("ConnectionRefusedError", "nobody listens")] * times

    async def meet(self, verb: str, path: str, body: bytes | None, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.sleep(self.latency_s)
                if self.before is not None:
                    await self.before(verb, path, body)
        except TimeoutError:
            raise errors.UnreachableError("Timeout", f"{verb} {path}") from None
        if self.down:
            raise errors.UnreachableError("ConnectionRefusedError", "nobody listens")
        if self._refusals:
            raise self._refusals.pop(0)
