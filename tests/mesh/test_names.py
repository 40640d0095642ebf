"""Names that users and other rooms rely on."""

import re

from hypothesis import given
from hypothesis import strategies as st

from mesh import names

SERVICE_ACCOUNTS = st.from_regex(r"[a-z0-9]([a-z0-9.-]{0,250}[a-z0-9])?", fullmatch=True).filter(
    lambda name: len(name) <= 253 and ".." not in name and ".-" not in name and "-." not in name
)
SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")


def test_short_service_account_is_the_end_of_its_secrets_name() -> None:
    assert names.identity_secret_name("cart") == "autotls-identity-cart"


@given(SERVICE_ACCOUNTS)
def test_secret_name_is_a_valid_object_name(account: str) -> None:
    name = names.identity_secret_name(account)
    assert len(name) <= 253
    assert SUBDOMAIN.fullmatch(name)


@given(st.integers(230, 253), st.sampled_from("abc."))
def test_long_names_that_differ_only_at_the_end_stay_apart(length: int, middle: str) -> None:
    stem = ("a" * 120 + middle).ljust(length - 1, "b")
    assert names.identity_secret_name(stem + "x") != names.identity_secret_name(stem + "y")


def test_a_cut_at_a_dot_leaves_a_valid_name() -> None:
    # The cut falls on character 242 of the whole name; put a dot exactly there.
    cut = 253 - 10 - 1 - len(names.IDENTITY_SECRET_PREFIX)
    account = "a" * (cut - 1) + "." + "b" * (253 - cut)
    name = names.identity_secret_name(account)
    assert SUBDOMAIN.fullmatch(name)
    assert len(name) <= 253


def test_ports_of_the_proxy_are_reserved() -> None:
    for port in (
        names.OUTBOUND_PORT,
        names.INBOUND_PLAINTEXT_PORT,
        names.INBOUND_TLS_PORT,
        names.XDS_PORT,
        names.STATUS_PORT,
    ):
        assert port in names.RESERVED_PORTS
