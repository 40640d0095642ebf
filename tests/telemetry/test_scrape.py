"""Windows over the proxies of a cluster: what is counted, and what is said when it could not be."""

import pytest

from kube.errors import ForbiddenError, ServerError
from telemetry.kinds import NODES, PODS
from telemetry.measurement import Measurement
from telemetry.rows import Kind, Row, table
from telemetry.scrape import Meter
from tests.telemetry.proxies import MeshApi
from tests.telemetry.scenes import Counters, deployment_pod, identity

WEB, CLIENT = "web-5d4f8c7b9-0", "client-5d4f8c7b9-0"
# Long enough for the clock to move; nothing depends on how long it is.
WINDOW_S = 0.01


@pytest.fixture
def api() -> MeshApi:
    made = MeshApi()
    made.seed(deployment_pod("web", "10.0.0.2"), deployment_pod("client", "10.0.0.3"))
    made.answers = {WEB: [Counters(), Counters().inbound(identity("client"), times=5)], CLIENT: [Counters()]}
    return made


def web(found: Measurement) -> Row:
    return next(row for row in table(Kind.DEPLOYMENT, found.book, found.seconds).rows if row.name == "web")


async def test_window_holds_what_was_added_in_it(api: MeshApi) -> None:
    api.answers[WEB] = [
        Counters().inbound(identity("client"), times=5),
        Counters().inbound(identity("client"), times=9),
    ]
    found = await Meter(api).measure(WINDOW_S)
    assert web(found).traffic.total.requests == 4
    assert found.notes == ()
    assert found.seconds >= WINDOW_S


async def test_end_of_one_window_is_the_beginning_of_the_next(api: MeshApi) -> None:
    counts = (5, 9, 20)
    api.answers[WEB] = [Counters().inbound(identity("client"), times=each) for each in counts]
    meter = Meter(api)
    assert [web(await meter.measure(WINDOW_S)).traffic.total.requests for _ in (1, 2)] == [4, 11]


async def test_proxy_that_does_not_answer_is_named_and_counts_nothing(api: MeshApi) -> None:
    api.answers[CLIENT] = [ServerError(502, "BadGateway", "refused")]
    found = await Meter(api).measure(WINDOW_S)
    assert found.notes == (f"1 of 2 proxies did not answer: shop/{CLIENT} (BadGateway)",)
    assert web(found).traffic.total.requests == 5


async def test_proxy_that_answered_only_later_is_named_and_its_past_is_not_counted(api: MeshApi) -> None:
    api.answers[WEB] = [ServerError(502, "BadGateway", "refused"), Counters().inbound(identity("client"), times=5000)]
    found = await Meter(api).measure(WINDOW_S)
    assert web(found).traffic.total.requests == 0
    assert found.notes == (f"1 of 2 proxies answered only after the window began: shop/{WEB}",)


async def test_pod_that_appeared_within_the_window_counts_from_zero(api: MeshApi) -> None:
    api.remove(f"/api/v1/namespaces/shop/pods/{WEB}")
    api.answers[WEB] = [Counters().inbound(identity("client"), times=5)]
    api.after_each_scrape = lambda pod: api.seed(deployment_pod("web", "10.0.0.2"))
    assert web(await Meter(api).measure(WINDOW_S)).traffic.total.requests == 5


async def test_pod_of_the_same_name_is_not_measured_against_its_predecessor(api: MeshApi) -> None:
    def replace(pod: str) -> None:
        api.remove(f"/api/v1/namespaces/shop/pods/{WEB}")
        api.seed(deployment_pod("web", "10.0.0.2"))

    api.answers[WEB] = [
        Counters().inbound(identity("client"), times=5),
        Counters().inbound(identity("client"), times=9),
    ]
    api.after_each_scrape = replace
    assert web(await Meter(api).measure(WINDOW_S)).traffic.total.requests == 9


async def test_full_proxy_is_named(api: MeshApi) -> None:
    text = b'envoy_server_uptime{} 9\nenvoy_server_stats_overflow_counter{scope="authority"} 3\n'
    api.answers[CLIENT] = [text]
    found = await Meter(api).measure(WINDOW_S)
    assert found.notes == (f"1 proxies reached their limit of series and left something out: shop/{CLIENT}",)


async def test_whoever_may_see_one_namespace_is_told_what_that_leaves_out(api: MeshApi) -> None:
    api.forbidden = {PODS, NODES}
    with pytest.raises(ForbiddenError):
        await Meter(api).measure(WINDOW_S)
    found = await Meter(api, "shop").measure(WINDOW_S)
    assert web(found).traffic.total.requests == 5
    assert found.notes == (
        "only pods of shop may be listed: plaintext from clients elsewhere is not counted",
        "nodes may not be listed: the kubelet's probes are counted as plaintext",
    )
