"""What the CA writes, and what it must not: objects from its own builders, with a part changed."""

import json
from datetime import UTC, datetime
from typing import Any, Final

from ca.authority import RootState, first_root
from ca.bundle import trust_bundle_config_map
from ca.issuer import make_root, new_key
from ca.profile import Lifetimes
from ca.secret import Manifest, Owner, tls_secret
from mesh import names
from mesh.config import IdentityConfig
from tests.chart.chart import NAMESPACE, render

OWNER: Final = Owner(NAMESPACE)
SHOP: Final = "shop"
DATA: Final = {"tls.crt": b"leaf", "tls.key": b"key", "ca.crt": b"root"}
NOW: Final = datetime(2026, 1, 1, tzinfo=UTC)
LABELS: Final = OWNER.labels


def secret(name: str, *, namespace: str = SHOP, labels: dict[str, str] = LABELS, **fields: Any) -> Manifest:
    item = tls_secret(OWNER, namespace, name, DATA)
    item["metadata"]["labels"] = labels
    return {**item, **fields}


def config_map(
    *, name: str = "autotls-trust-bundle", namespace: str = SHOP, labels: dict[str, str] = LABELS, **fields: Any
) -> Manifest:
    item = trust_bundle_config_map(OWNER, namespace, root().bundle)
    item["metadata"].update(name=name, labels=labels)
    return {**item, **fields}


def registration(name: str = names.STRICT_REGISTRATION, **changes: Any) -> Manifest:
    """The strict registration from the chart's text, with some fields of its entries changed."""
    text = render().get("ConfigMap", names.STRICT_REGISTRATION_TEMPLATE)["data"]["registration.json"]
    item: Manifest = json.loads(text)
    item["metadata"]["name"] = name
    item["webhooks"] = [{**webhook, **changes} for webhook in item["webhooks"]]
    return item


def root() -> RootState:
    lifetimes = Lifetimes.of(IdentityConfig())
    return first_root(make_root(key=new_key(), serial=1, now=NOW, lifetimes=lifetimes))
