"""Whatever talked to whatever: each connection that a proxy saw is in the table once, and the reasons add up."""

from collections import Counter, defaultdict

from hypothesis import given
from hypothesis import strategies as st

from telemetry.figures import percent, shares
from telemetry.rows import Kind, table
from tests.telemetry.scenes import Counters, book_of, cluster_of, deployment_pod, identity

WORKLOADS = ("a", "b", "c", "d")
# What a workload is like: meshed, observed, redirected.
NATURES = st.tuples(st.booleans(), st.booleans(), st.booleans())
# client, its pod, server, its pod, whether TLS worked, HTTP or not, how often.
TALK = st.tuples(
    st.sampled_from(WORKLOADS),
    st.integers(0, 1),
    st.sampled_from(WORKLOADS),
    st.integers(0, 1),
    st.booleans(),
    st.booleans(),
    st.integers(1, 9),
)


@given(st.tuples(NATURES, NATURES, NATURES, NATURES), st.lists(TALK, max_size=25))
def test_each_connection_that_was_seen_counts_once(
    natures: tuple[tuple[bool, bool, bool], ...], talk: list[tuple[str, int, str, int, bool, bool, int]]
) -> None:
    nature = dict(zip(WORKLOADS, natures, strict=True))
    address = {(name, n): f"10.0.{i}.{n + 2}" for i, name in enumerate(WORKLOADS) for n in (0, 1)}
    pods = [
        deployment_pod(name, address[name, n], n, meshed=meshed, observed=meshed and observed, redirected=redirected)
        for name, (meshed, observed, redirected) in nature.items()
        for n in (0, 1)
    ]
    counters: dict[str, Counters] = defaultdict(Counters)
    tls: Counter[str] = Counter()
    plain: dict[str, Counter[str]] = defaultdict(Counter)
    for client, i, server, j, works, http, times in talk:
        proto = "HTTP/1.1" if http else "TCP"
        client_meshed, _, redirected = nature[client]
        server_meshed, observed, _ = nature[server]
        sends, dst = counters[f"{client}-5d4f8c7b9-{i}"], f"shop/deployment/{server}"
        receives = counters[f"{server}-5d4f8c7b9-{j}"]
        witness = client_meshed and redirected
        if witness and server_meshed and works:
            sends.outbound(dst, proto=proto, times=times)
            receives.inbound(identity(client), proto=proto, times=times)
            tls[server] += times
            continue
        reason = (
            "tls_failed"
            if witness and server_meshed
            else "no_redirect"
            if client_meshed and not redirected
            else "not_meshed"
        )
        if witness:
            sends.outbound(dst, tls=False, reason=reason, proto=proto, times=times)
        if server_meshed and observed:
            receives.plaintext(address[client, i], times=times)
        if witness or (server_meshed and observed):
            plain[server][reason] += times
    found = table(Kind.DEPLOYMENT, book_of(cluster_of(pods), counters), 10.0)
    for row in found.rows:
        assert row.traffic.tls == tls[row.name]
        assert dict(row.traffic.plaintext) == dict(plain[row.name])
        assert sum(row.traffic.peers.values()) == sum(plain[row.name].values())
        meshed, observed, _ = nature[row.name]
        assert row.unseen == (not (meshed and observed))


PARTS = st.dictionaries(st.text(max_size=5), st.integers(0, 10**6).map(float), max_size=9)


@given(PARTS)
def test_shown_shares_of_the_reasons_sum_to_one_hundred(parts: dict[str, float]) -> None:
    shown = shares(parts)
    tenths = [round(float(text.removesuffix("%")) * 10) for text in shown.values()]
    assert sum(tenths) == (1000 if any(parts.values()) else 0)
    assert tenths == sorted(tenths, reverse=True)


@given(st.integers(0, 10**9), st.integers(1, 10**9))
def test_all_and_nothing_are_shown_only_for_all_and_nothing(part: int, more: int) -> None:
    whole = part + more
    assert percent(part / whole) != "100.00%" or part / whole == 1
    assert (percent(part / whole) == "0.00%") == (part == 0)
