"""Every name that autotls puts into a cluster, in one place.

Labels, annotations, object names, container names, ports. Changing one is a breaking change.
"""

import hashlib
from typing import Final

# Labels that users set. Labels, not annotations: the API server's selectors see only labels, and failurePolicy
# is per registration, so optional and strict pods must be told apart before we are called.
INJECT_LABEL: Final = "autotls.io/inject"
INJECT_ENABLED: Final = "enabled"
INJECT_DISABLED: Final = "disabled"
MODE_LABEL: Final = "autotls.io/tls"

# Every other setting is an annotation on the pod, else on its namespace, else the chart's value.
SETTING_PREFIX: Final = "config.autotls.io/"

# What an injected pod carries.
MESH_LABEL: Final = "autotls.io/mesh"
VERSION_ANNOTATION: Final = "autotls.io/version"
IDENTITY_ANNOTATION: Final = "autotls.io/identity"
# The TCP ports that the pod's containers declare, as `8080,9090`; the proxy reads it by the downward API.
PORTS_ANNOTATION: Final = "autotls.io/ports"

# Ownership of the objects that the CA writes.
MANAGED_BY_LABEL: Final = "app.kubernetes.io/managed-by"
MANAGED_BY: Final = "autotls"
CONTROL_PLANE_LABEL: Final = "autotls.io/control-plane"
SERVICE_ACCOUNT_ANNOTATION: Final = "autotls.io/service-account"
CA_FIELD_MANAGER: Final = "autotls-ca"

# Objects in the control plane's namespace.
DEFAULT_CONTROL_PLANE_NAMESPACE: Final = "autotls"
CONFIG_MAP: Final = "autotls-config"
CONFIG_KEY: Final = "config.yaml"
CONFIG_PATH: Final = "/etc/autotls/config.yaml"
ROOT_SECRET: Final = "autotls-root"  # noqa: S105 - the name of an object
ISSUER_SECRET: Final = "autotls-issuer"  # noqa: S105
WEBHOOK_TLS_SECRET: Final = "autotls-webhook-tls"  # noqa: S105
DISCOVERY_TLS_SECRET: Final = "autotls-discovery-tls"  # noqa: S105
CA_LEASE: Final = "autotls-ca"
REGISTRATION: Final = "autotls"
STRICT_REGISTRATION: Final = "autotls-strict"
STRICT_REGISTRATION_TEMPLATE: Final = "autotls-strict-registration"
WEBHOOK: Final = "autotls-webhook"
CA: Final = "autotls-ca"
DISCOVERY: Final = "autotls-discovery"
DASHBOARD: Final = "autotls-dashboard"
# The ServiceAccount that may tap, the audience of its tokens, and the verb on pods that taps are allowed by.
TAP: Final = "autotls-tap"
TAP_VERB: Final = "tap"
# Secret → the Service whose certificate it holds.
SERVING_SECRETS: Final = {WEBHOOK_TLS_SECRET: WEBHOOK, DISCOVERY_TLS_SECRET: DISCOVERY}

# Objects in every namespace with an identity.
TRUST_BUNDLE_CONFIG_MAP: Final = "autotls-trust-bundle"
TLS_CERT_KEY: Final = "tls.crt"
TLS_PRIVATE_KEY_KEY: Final = "tls.key"
TRUST_BUNDLE_KEY: Final = "ca.crt"
IDENTITY_SECRET_PREFIX: Final = "autotls-identity-"  # noqa: S105

# In the pod.
INIT_CONTAINER: Final = "autotls-init"
PROXY_CONTAINER: Final = "autotls-proxy"
IDENTITY_VOLUME: Final = "autotls-identity"
IDENTITY_MOUNT: Final = "/var/run/secrets/autotls.io"
RUN_VOLUME: Final = "autotls-run"
RUN_MOUNT: Final = "/run/autotls"
PROXY_UID: Final = 2102

# Proxy ports. The whole range is ours: no container may declare one, none is reachable through INBOUND_TLS_PORT.
OUTBOUND_PORT: Final = 15101
INBOUND_PLAINTEXT_PORT: Final = 15106
INBOUND_TLS_PORT: Final = 15108
XDS_PORT: Final = 15110
# Of discovery, on its pod's own loopback only: who reaches it came through the API server.
TAP_PORT: Final = 15111
STATUS_PORT: Final = 15120
RESERVED_PORTS: Final = range(15100, 15200)
# What a client's proxy says in the TLS handshake that it is going to speak.
ALPN_HTTP: Final = "autotls-http"
ALPN_TCP: Final = "autotls-tcp"

# Control-plane ports.
WEBHOOK_PORT: Final = 8443
HEALTH_PORT: Final = 9090
# On the pod's loopback only.
DASHBOARD_PORT: Final = 8080

# Never injected, whatever their labels say: a broken sidecar there would take the cluster with it.
SYSTEM_NAMESPACES: Final = frozenset({"kube-system", "kube-node-lease"})

# RFC 1123 subdomain, the limit of a Secret's and a ServiceAccount's name (k8s apimachinery validation.go).
MAX_NAME_LENGTH: Final = 253


def identity_secret_name(service_account: str) -> str:
    """The name of the Secret that holds the SVID of `service_account`.

    Names that would exceed 253 characters are cut and end in `-<10 hex digits>` of the SHA-256 of the full
    ServiceAccount name, so two long names never share a Secret. A short name can not collide with a cut one:
    only cut names are exactly 253 characters long and a ServiceAccount that yields 253 characters uncut is
    cut as well.
    """
    name = IDENTITY_SECRET_PREFIX + service_account
    if len(name) < MAX_NAME_LENGTH:
        return name
    digest = hashlib.sha256(service_account.encode()).hexdigest()[:10]
    # A cut may leave a trailing dot or dash before our dash, which RFC 1123 allows only for dashes.
    kept = name[: MAX_NAME_LENGTH - len(digest) - 1]
    if kept[-1] == ".":
        kept = kept[:-1] + "-"
    return f"{kept}-{digest}"
