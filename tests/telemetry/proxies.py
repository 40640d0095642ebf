"""An API server in memory whose pods have proxies that answer."""

from collections.abc import Callable
from dataclasses import dataclass, field

from kube.client import Query
from kube.errors import ApiError, ForbiddenError, ServerError
from tests.fakes.kubeapi import FakeApi
from tests.telemetry.scenes import Counters

_PROXY = ":15120/proxy/metrics"


@dataclass
class MeshApi(FakeApi):
    """`answers`: pod -> what its proxy says at each look, the last one again and again; an error is raised."""

    answers: dict[str, list[Counters | bytes | ApiError]] = field(default_factory=dict)
    forbidden: set[str] = field(default_factory=set)
    after_each_scrape: Callable[[str], None] = lambda _pod: None

    def __post_init__(self) -> None:
        FakeApi.__init__(self)

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Query = (),
        body: bytes | None = None,
        content_type: str = "application/json",
        timeout_s: float = 15.0,
    ) -> bytes:
        if path in self.forbidden:
            raise ForbiddenError(403, "Forbidden", f"cannot list {path}")
        if not path.endswith(_PROXY):
            return await super().request(
                method, path, query=query, body=body, content_type=content_type, timeout_s=timeout_s
            )
        pod = path.removesuffix(_PROXY).rpartition("/")[2]
        said = self.answers.get(pod, [ServerError(503, "ServiceUnavailable", "no proxy")])
        answer = said.pop(0) if len(said) > 1 else said[0]
        self.after_each_scrape(pod)
        if isinstance(answer, ApiError):
            raise answer
        return answer if isinstance(answer, bytes) else answer.text()
