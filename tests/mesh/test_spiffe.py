"""SPIFFE IDs, checked against the reference library."""

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from spiffe import SpiffeId as ReferenceId
from spiffe.errors import PySpiffeError

from mesh.spiffe import SpiffeId, SpiffeIdError, TrustDomain

TEXTS = st.one_of(
    st.text(max_size=30),
    st.text(alphabet="aZ0-._~/%: é", max_size=30).map(lambda text: "spiffe://" + text),
    st.from_regex(r"spiffe://[a-z0-9._-]{1,10}(/[A-Za-z0-9._-]{1,5}){0,4}", fullmatch=True),
)


def canonical(kind: Any, text: str) -> bool:
    """Whether the reference accepts `text` and has nothing to change in it (it lower-cases trust domains)."""
    try:
        return str(kind(text)) == text
    except PySpiffeError:
        return False


@given(TEXTS)
@example("spiffe://A/ns/a")
@example("SPIFFE://a")
@example("spiffe://a/")
@example("spiffe://a/./b")
@example("spiffe://a?b")
def test_we_accept_exactly_the_ids_that_the_reference_takes_as_they_are(text: str) -> None:
    try:
        parsed = SpiffeId.parse(text)
    except SpiffeIdError:
        assert not canonical(ReferenceId, text)
    else:
        assert str(parsed) == text
        assert canonical(ReferenceId, text)


@given(st.text(alphabet="abz09-._", min_size=1, max_size=20))
def test_trust_domains_are_those_of_the_reference(text: str) -> None:
    assert str(TrustDomain.parse(text)) == text
    assert canonical(ReferenceId, f"spiffe://{text}/a")


@pytest.mark.parametrize("text", ["", "UPPER", "a b", "a/b", "spiffe://a", "é", "a" * 256, "a\n"])
def test_other_text_is_no_trust_domain(text: str) -> None:
    with pytest.raises(SpiffeIdError):
        TrustDomain.parse(text)


def test_identity_of_a_service_account_and_back() -> None:
    identity = TrustDomain.parse("cluster.local").workload("shop", "cart")
    assert str(identity) == "spiffe://cluster.local/ns/shop/sa/cart"
    assert SpiffeId.parse(str(identity)) == identity
    assert identity.service_account == ("shop", "cart")


@pytest.mark.parametrize("path", ["", "/ns/shop", "/ns/shop/sa/cart/more", "/sa/cart/ns/shop", "/x/shop/sa/cart"])
def test_other_paths_name_no_service_account(path: str) -> None:
    assert SpiffeId.parse(f"spiffe://cluster.local{path}").service_account is None


@pytest.mark.parametrize(
    ("namespace", "account"),
    [("shop", "a/sa/b"), ("shop/sa/x", "b"), ("shop", ".."), ("", "a"), ("shop", ""), ("shop", "é")],
)
def test_parts_that_are_no_path_segment_make_no_identity(namespace: str, account: str) -> None:
    with pytest.raises(SpiffeIdError):
        TrustDomain.parse("cluster.local").workload(namespace, account)


def test_too_long_is_refused() -> None:
    with pytest.raises(SpiffeIdError, match="too long"):
        SpiffeId.parse("spiffe://a/" + "b" * 2048)
