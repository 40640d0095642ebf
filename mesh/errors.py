"""The error tree that every room hangs its own errors on.

AutotlsError
├── SpiffeIdError          a string is not a SPIFFE ID or trust domain   (mesh.spiffe)
├── ConfigError            the installation's configuration is invalid   (mesh.config)
├── SettingError           one label or annotation has a bad value       (mesh.settings)
├── ReviewError            bytes are not an AdmissionReview of a pod     (mesh.review)
├── kube.errors.ApiError   the API server said no, or nothing
└── ca.errors.IssueError   a certificate could not be made or did not verify
"""


class AutotlsError(Exception):
    """Something that autotls can name; `hint` says what the reader can do about it.

    The message says what broke, the hint what to do. Neither ever contains key material.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    def __str__(self) -> str:
        message = super().__str__()
        return f"{message}: {self.hint}" if self.hint else message

    @property
    def message(self) -> str:
        """The message without the hint."""
        return super().__str__()
