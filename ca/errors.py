"""What can go wrong in the CA, as types. None of their texts ever holds key material."""

from mesh.errors import AutotlsError


class IssueError(AutotlsError):
    """A certificate could not be made, or what was made did not verify. Nothing was applied."""


class AuthorityError(AutotlsError):
    """The Secret of the root or of the issuer does not hold what it must; it is left as it is."""
