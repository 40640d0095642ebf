"""The parts of the webhook's registrations that are the CA's: `caBundle`, and the strict registration. Pure.

Server-side apply with the fields below makes the CA the owner of `webhooks[name].clientConfig.caBundle` and of
nothing else in the chart's registration: the list is a map keyed by name (admissionregistration/v1 types.go,
`+listMapKey=name`) and required fields are checked after the merge, so they need not be in what is applied. Helm
never renders `caBundle`, so an upgrade leaves it alone (tested on a real API server).
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from ca.bundle import ca_bundle
from ca.errors import AuthorityError
from ca.secret import Manifest, Owner
from kube.kinds import MutatingWebhookConfiguration
from mesh import names
from mesh.pod import ObjectMeta
from mesh.svid import TrustBundle

API_VERSION: Final = "admissionregistration.k8s.io/v1"
KIND: Final = "MutatingWebhookConfiguration"
TEMPLATE_KEY: Final = "registration.json"


class _Webhook(msgspec.Struct, frozen=True):
    name: str


class _Template(msgspec.Struct, frozen=True):
    webhooks: tuple[_Webhook, ...]
    metadata: ObjectMeta = ObjectMeta()


def holds(registration: MutatingWebhookConfiguration, bundle: TrustBundle) -> bool:
    """True when every webhook of the registration has exactly this bundle."""
    wanted = ca_bundle(bundle)
    return all(one.client_config.ca_bundle == wanted for one in registration.webhooks or ())


def ca_bundle_patch(registration: MutatingWebhookConfiguration, bundle: TrustBundle) -> Manifest:
    """What is applied to the chart's registration; the uid keeps an apply from creating it anew after an uninstall."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": registration.metadata.name, "uid": registration.metadata.uid},
        "webhooks": [
            {"name": one.name, "clientConfig": {"caBundle": ca_bundle(bundle)}} for one in registration.webhooks or ()
        ],
    }


def strict_registration(
    template: str, owner: Owner, optional: MutatingWebhookConfiguration, bundle: TrustBundle
) -> Manifest:
    """The registration that fails closed, complete with `caBundle`, owned by the optional one so that an uninstall
    takes it along.

    Raises AuthorityError when the template is not a registration.
    """
    try:
        # Once for its form, once as it is: the template's fields are the chart's business.
        parsed = msgspec.json.decode(template, type=_Template)
        manifest: dict[str, Any] = msgspec.json.decode(template)
    except msgspec.MsgspecError as error:
        raise AuthorityError(
            f"ConfigMap {names.STRICT_REGISTRATION_TEMPLATE}: {error}",
            hint="the chart writes it; strict pods are not injected until it is right",
        ) from None
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {
            "name": names.STRICT_REGISTRATION,
            "labels": {**(parsed.metadata.labels or {}), **owner.labels},
            "ownerReferences": [
                {
                    "apiVersion": API_VERSION,
                    "kind": KIND,
                    "name": optional.metadata.name,
                    "uid": optional.metadata.uid,
                }
            ],
        },
        "webhooks": _with_bundle(manifest["webhooks"], bundle),
    }


def _with_bundle(webhooks: Sequence[dict[str, Any]], bundle: TrustBundle) -> list[dict[str, Any]]:
    return [
        {**one, "clientConfig": {**(one.get("clientConfig") or {}), "caBundle": ca_bundle(bundle)}} for one in webhooks
    ]
