"""Whose an object is, what is written, and that nothing with a key in it ever shows the key."""

import base64
import logging
import pprint
from typing import Any

import msgspec
import pytest

from ca.authority import first_root, parse_issuer, parse_root
from ca.errors import AuthorityError
from ca.issuer import LeafIssuer
from ca.secret import DECODE_SECRET, Owner, OwnSecret, identity_secret, is_ours, service_account_of, tls_secret
from ca.trust import Trust
from mesh import names
from mesh.svid import SvidError, TrustBundle, parse_credential
from tests.ca.authorities import LIFETIMES, T0, a_leaf, a_root, an_issuer, secret_data

OWNER = Owner("autotls")
ROOT = a_root()
ISSUER = an_issuer(ROOT)
ISSUED = a_leaf(ISSUER)
BUNDLE = TrustBundle.of([ROOT.certificate])
DATA = secret_data(ISSUED, ROOT)


def own(**changes: Any) -> OwnSecret:
    manifest = identity_secret(OWNER, "shop", "web", DATA)
    manifest["metadata"] |= changes.pop("metadata", {})
    return DECODE_SECRET.decode(msgspec.json.encode(manifest | changes))


OWNERSHIP = {
    "our labels and a certificate under our root": (own(), True),
    "our labels and our record as its author, whatever it holds": (
        own(data={"tls.crt": "eA=="}, metadata={"managedFields": [{"manager": "autotls-ca"}]}),
        True,
    ),
    "a certificate under our root without labels": (own(metadata={"labels": {}}), False),
    "labels of another installation": (
        own(metadata={"labels": Owner("elsewhere").labels}),
        False,
    ),
    "our labels and a certificate of somebody else": (
        own(data={"tls.crt": base64.b64encode(a_leaf(an_issuer(a_root())).chain_pem).decode()}),
        False,
    ),
    "our labels, another author, garbage": (
        own(data={"tls.crt": "eA=="}, metadata={"managedFields": [{"manager": "kubectl"}]}),
        False,
    ),
    "our labels and nothing in it": (own(data={}), False),
    "another type": (own(type="Opaque", metadata={"managedFields": [{"manager": "autotls-ca"}]}), False),
}


@pytest.mark.parametrize(("secret", "expected"), OWNERSHIP.values(), ids=OWNERSHIP.keys())
def test_ownership(secret: OwnSecret, expected: bool) -> None:
    assert is_ours(secret, OWNER, BUNDLE) is expected


def test_an_expired_certificate_of_ours_is_still_ours() -> None:
    old_root = a_root(now=T0.replace(year=2000))
    data = secret_data(a_leaf(an_issuer(old_root, now=T0.replace(year=2000)), now=T0.replace(year=2000)), old_root)
    manifest = identity_secret(OWNER, "shop", "web", data)
    secret = DECODE_SECRET.decode(msgspec.json.encode(manifest))
    assert is_ours(secret, OWNER, TrustBundle.of([old_root.certificate]))


def test_an_applied_secret_carries_the_version_it_was_decided_on() -> None:
    assert "resourceVersion" not in tls_secret(OWNER, "a", "b", {})["metadata"]
    assert tls_secret(OWNER, "a", "b", {}, resource_version="7")["metadata"]["resourceVersion"] == "7"


def test_the_service_account_is_read_from_annotation_and_name_together() -> None:
    assert service_account_of(own().metadata) == "web"
    long = "a" * 250
    manifest = identity_secret(OWNER, "shop", long, DATA)
    assert len(manifest["metadata"]["name"]) <= names.MAX_NAME_LENGTH
    assert service_account_of(DECODE_SECRET.decode(msgspec.json.encode(manifest)).metadata) == long
    assert service_account_of(own(metadata={"annotations": {names.SERVICE_ACCOUNT_ANNOTATION: "api"}}).metadata) is None


def material() -> list[str]:
    """Every line of every private key in play, PEM and base64 of it."""
    keys = [ISSUED.key_pem, first_root(ROOT).data()["tls.key"], first_root(ISSUER).data()["tls.key"]]
    lines = [line.decode() for key in keys for line in key.splitlines()[1:-1]]
    return lines + [base64.b64encode(key).decode()[40:100] for key in keys] + ["PRIVATE"]


PREPARED = first_root(ROOT).prepared(a_root())
HOLDERS: dict[str, Any] = {
    "Authority": ISSUER,
    "RootState": PREPARED,
    "Issued": ISSUED,
    "LeafIssuer": LeafIssuer(ISSUER, LIFETIMES),
    "Trust": Trust(LeafIssuer(ISSUER, LIFETIMES), BUNDLE, BUNDLE),
    "Credential": parse_credential(DATA),
    "OwnSecret": own(),
}


@pytest.mark.parametrize("holder", HOLDERS.values(), ids=HOLDERS.keys())
def test_nothing_that_holds_a_key_shows_it(holder: Any, caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("test").error("%s %r", holder, holder)
    shown = f"{holder} {holder!r} {[holder]} {caplog.text} {pprint.pformat(holder)}"
    if hasattr(holder, "__rich_repr__"):
        shown += repr(list(holder.__rich_repr__()))
    for line in material():
        assert line not in shown


def test_errors_about_secrets_do_not_quote_them() -> None:
    broken = DATA | {"tls.key": ISSUED.key_pem.replace(b"PRIVATE", b"SECRET")}
    with pytest.raises(SvidError) as caught:
        parse_credential(broken)
    with pytest.raises(AuthorityError) as caught_too:
        parse_root(first_root(ROOT).data() | {"tls.key": broken["tls.key"]})
    for error in (caught.value, caught_too.value):
        assert not any(line in f"{error} {error.hint} {error.__cause__!r}" for line in material())
        assert "tls.key" in str(error)


ROOT_FAULTS = {
    "no certificate": ({"tls.crt": b""}, "tls.crt"),
    "no key": ({"tls.key": b""}, "tls.key"),
    "the key of another": ({"tls.key": first_root(ISSUER).data()["tls.key"]}, "not the key"),
    "a leaf instead of an authority": ({"tls.crt": ISSUED.chain_pem}, "may not sign"),
    "a bundle that cannot be read": ({"ca.crt": b"x"}, "ca.crt"),
    "a successor without its key": ({"next.crt": first_root(a_root()).data()["tls.crt"]}, "next.key"),
}


@pytest.mark.parametrize(("change", "words"), ROOT_FAULTS.values(), ids=ROOT_FAULTS.keys())
def test_a_root_that_cannot_be_used_is_refused_by_name(change: dict[str, bytes], words: str) -> None:
    with pytest.raises(AuthorityError, match=words) as caught:
        parse_root(first_root(ROOT).data() | change)
    assert "autotls-root" in str(caught.value) and caught.value.hint


def test_an_issuer_that_does_not_lead_to_its_bundle_is_refused() -> None:
    from ca.authority import issuer_data

    data = issuer_data(ISSUER, TrustBundle.of([a_root().certificate]))
    with pytest.raises(AuthorityError, match="no certificate of the bundle"):
        parse_issuer(data, T0)
    with pytest.raises(AuthorityError, match="expired"):
        parse_issuer(issuer_data(ISSUER, BUNDLE), T0.replace(year=2030))
