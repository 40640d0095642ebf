"""The trust bundle in the two forms in which others read it: a ConfigMap per namespace, and `caBundle`. Pure."""

import base64

from ca.secret import Manifest, Owner, manifest_metadata
from mesh import names
from mesh.svid import TrustBundle


def trust_bundle_config_map(
    owner: Owner, namespace: str, bundle: TrustBundle, *, resource_version: str | None = None
) -> Manifest:
    """The bundle for everybody else in the namespace."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": manifest_metadata(owner, namespace, names.TRUST_BUNDLE_CONFIG_MAP, resource_version),
        "data": {names.TRUST_BUNDLE_KEY: bundle.pem.decode()},
    }


def ca_bundle(bundle: TrustBundle) -> str:
    """As `caBundle` has it: base64 of all roots in PEM form, old and new ones."""
    return base64.b64encode(bundle.pem).decode()
