"""Who may tap: the API server is asked whose token it is, and whether that user has our verb on pods."""

from typing import Final

from discovery.errors import TapRefusedError
from kube import reviews
from kube.client import Api
from kube.errors import ApiError
from kube.reviews import User
from mesh import names

_UNAVAILABLE: Final = 503


class Access:
    """Through discovery's own ServiceAccount, which may create both kinds of review."""

    def __init__(self, api: Api) -> None:
        self._api = api

    async def user_of(self, token: str) -> User:
        """The bearer of a token, made for taps or for the API server itself. Raises TapRefusedError."""
        try:
            user = await reviews.user_of(self._api, token, audience=names.TAP) if token else None
            if token and user is None:
                user = await reviews.user_of(self._api, token)
        except ApiError as error:
            raise TapRefusedError(_UNAVAILABLE, f"whose token it is cannot be told: {error.message}") from error
        if user is None:
            raise TapRefusedError(
                401,
                "the API server knows nobody by this token",
                hint="log in again, or name a ServiceAccount that may tap with --service-account NAMESPACE/NAME",
            )
        return user

    async def check(self, user: User, namespace: str) -> None:
        """Returns if `user` may tap pods of `namespace` (empty: of all). Raises TapRefusedError."""
        try:
            allowed = await reviews.is_allowed(
                self._api, user, verb=names.TAP_VERB, resource="pods", namespace=namespace
            )
        except ApiError as error:
            raise TapRefusedError(_UNAVAILABLE, f"whether you may tap cannot be told: {error.message}") from error
        if not allowed:
            where, binding = (f"in namespace {namespace}", f"rolebinding NAME -n {namespace}") if namespace else (
                "in all namespaces", "clusterrolebinding NAME",
            )  # fmt: skip
            raise TapRefusedError(
                403,
                f"{user.username} may not tap: it needs the verb {names.TAP_VERB!r} on pods {where}",
                hint=f"whoever may grant it: kubectl create {binding} --clusterrole={names.TAP} --user={user.username}",
            )
