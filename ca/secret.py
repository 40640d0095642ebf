"""The objects that the CA writes, as manifests, and the question whose an object is. Pure.

Ownership (design section 3): our two labels and a proof that we wrote it. Labels alone are copied too easily, with
a template or a backup of another cluster; the proof is a certificate that leads to a root of ours, or the API
server's own record of who wrote the data (managedFields). The record is what lets a Secret be repaired after its
certificate was destroyed, or after the root was replaced.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from ca.verify import signed_by
from mesh import names
from mesh.pod import ObjectMeta, Wire
from mesh.svid import SvidError, TrustBundle, parse_certificates

TLS_TYPE: Final = "kubernetes.io/tls"
Manifest = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Owner:
    """This installation: its control plane's namespace, which is on everything that it owns."""

    control_plane_namespace: str

    @property
    def labels(self) -> dict[str, str]:
        return {names.MANAGED_BY_LABEL: names.MANAGED_BY, names.CONTROL_PLANE_LABEL: self.control_plane_namespace}

    @property
    def selector(self) -> str:
        """The same as a label selector."""
        return ",".join(f"{key}={value}" for key, value in self.labels.items())

    def labelled(self, metadata: ObjectMeta) -> bool:
        return all(metadata.label(key) == value for key, value in self.labels.items())


class ManagedFields(Wire, frozen=True):
    """Who wrote an object, as the API server recorded it."""

    manager: str = ""


class SecretMeta(ObjectMeta, frozen=True):
    managed_fields: tuple[ManagedFields, ...] | None = None


class OwnSecret(Wire, frozen=True):
    """A Secret with what ownership needs; its data shows in no repr."""

    metadata: SecretMeta
    type: str = ""
    data: Mapping[str, str] | None = None

    def decoded(self) -> dict[str, bytes]:
        return {key: base64.b64decode(text) for key, text in (self.data or {}).items()}

    def __repr__(self) -> str:
        return f"OwnSecret({self.metadata.namespace}/{self.metadata.name}, keys={sorted(self.data or ())})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("metadata", self.metadata), ("keys", sorted(self.data or ()))]


def is_ours(secret: OwnSecret, owner: Owner, bundle: TrustBundle) -> bool:
    """True when this installation may change or remove `secret`."""
    if not owner.labelled(secret.metadata) or secret.type != TLS_TYPE:
        return False
    if any(one.manager == names.CA_FIELD_MANAGER for one in secret.metadata.managed_fields or ()):
        return True
    return _leads_to(secret.decoded().get(names.TLS_CERT_KEY, b""), bundle)


def _leads_to(pem: bytes, bundle: TrustBundle) -> bool:
    """True when the chain in `pem` was signed under a root of `bundle`, whatever its validity."""
    try:
        child, *issuers = parse_certificates(pem, names.TLS_CERT_KEY)
    except SvidError:
        return False
    for issuer in issuers:
        if not signed_by(child, issuer):
            return False
        child = issuer
    return any(signed_by(child, root) for root in bundle.roots)


def identity_secret(
    owner: Owner,
    namespace: str,
    service_account: str,
    data: Mapping[str, bytes],
    *,
    resource_version: str | None = None,
) -> Manifest:
    """The identity Secret of a ServiceAccount; `resource_version` makes an apply hold only for that version."""
    manifest = tls_secret(
        owner, namespace, names.identity_secret_name(service_account), data, resource_version=resource_version
    )
    # The name may be cut; the annotation is the way back to the ServiceAccount.
    manifest["metadata"]["annotations"] = {names.SERVICE_ACCOUNT_ANNOTATION: service_account}
    return manifest


def tls_secret(
    owner: Owner, namespace: str, name: str, data: Mapping[str, bytes], *, resource_version: str | None = None
) -> Manifest:
    """A `kubernetes.io/tls` Secret of ours."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": manifest_metadata(owner, namespace, name, resource_version),
        "type": TLS_TYPE,
        "data": {key: base64.b64encode(value).decode() for key, value in data.items()},
    }


def credential_data(chain_pem: bytes, key_pem: bytes, bundle: TrustBundle) -> dict[str, bytes]:
    """What the proxy mounts: leaf then issuer, key, bundle."""
    return {
        names.TLS_CERT_KEY: chain_pem,
        names.TLS_PRIVATE_KEY_KEY: key_pem,
        names.TRUST_BUNDLE_KEY: bundle.pem,
    }


def service_account_of(metadata: ObjectMeta) -> str | None:
    """The ServiceAccount that an identity Secret belongs to; None for any other object.

    Name and annotation must agree, or two ServiceAccounts could claim one Secret.
    """
    name = metadata.annotation(names.SERVICE_ACCOUNT_ANNOTATION)
    return name if name and names.identity_secret_name(name) == metadata.name else None


def manifest_metadata(owner: Owner, namespace: str, name: str, resource_version: str | None) -> Manifest:
    metadata: Manifest = {"name": name, "namespace": namespace, "labels": owner.labels}
    if resource_version is not None:
        metadata["resourceVersion"] = resource_version
    return metadata


DECODE_SECRET: Final = msgspec.json.Decoder(OwnSecret)
