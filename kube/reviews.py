"""Who a token belongs to, whether somebody may do something, and a token of our own for a ServiceAccount.

Sources: k8s.io/api/authentication/v1 (TokenReview, TokenRequest), k8s.io/api/authorization/v1 (SubjectAccessReview).
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from kube.client import Api
from mesh.pod import Wire


class User(Wire, frozen=True):
    """Whom the API server takes the bearer of a token for."""

    username: str = ""
    uid: str = ""
    groups: tuple[str, ...] | None = None
    extra: Mapping[str, tuple[str, ...]] | None = None


class _TokenStatus(Wire, frozen=True):
    authenticated: bool = False
    user: User = User()


class _TokenReview(Wire, frozen=True):
    status: _TokenStatus = _TokenStatus()


class _AccessStatus(Wire, frozen=True):
    allowed: bool = False


class _AccessReview(Wire, frozen=True):
    status: _AccessStatus = _AccessStatus()


class _IssuedToken(Wire, frozen=True):
    token: str = ""

    def __repr__(self) -> str:
        return "_IssuedToken()"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return []


class _TokenRequest(Wire, frozen=True):
    status: _IssuedToken = _IssuedToken()


async def user_of(api: Api, token: str, *, audience: str = "") -> User | None:
    """The bearer of `token`, which must be meant for `audience` (empty: for the API server); None for nobody.

    Raises ApiError.
    """
    spec = {"token": token, **({"audiences": [audience]} if audience else {})}
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": spec}
    answer = await api.request("POST", "/apis/authentication.k8s.io/v1/tokenreviews", body=msgspec.json.encode(body))
    status = msgspec.json.decode(answer, type=_TokenReview).status
    return status.user if status.authenticated else None


async def is_allowed(api: Api, user: User, *, verb: str, resource: str, namespace: str, group: str = "") -> bool:
    """True when `user` may `verb` the `resource` in `namespace`, or in all of them when that is empty.

    Raises ApiError.
    """
    spec = {
        "user": user.username,
        "uid": user.uid,
        "groups": user.groups or (),
        "extra": user.extra or {},
        "resourceAttributes": {"namespace": namespace, "verb": verb, "group": group, "resource": resource},
    }
    body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
    path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
    answer = await api.request("POST", path, body=msgspec.json.encode(body))
    return msgspec.json.decode(answer, type=_AccessReview).status.allowed


async def issue_token(api: Api, *, namespace: str, service_account: str, audience: str, lifetime_s: int) -> str:
    """A token of that ServiceAccount, good for `audience` alone; the API server's least lifetime is 600 s.

    Raises ApiError.
    """
    spec = {"audiences": [audience], "expirationSeconds": lifetime_s}
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{service_account}/token"
    answer = await api.request("POST", path, body=msgspec.json.encode(body))
    return msgspec.json.decode(answer, type=_TokenRequest).status.token
