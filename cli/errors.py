"""What goes wrong at the command line; `cli.main` alone turns it into a message and an exit code."""

from typing import Final

from mesh.errors import AutotlsError

EXIT_OK: Final = 0
EXIT_FAILED: Final = 1  # findings, or an error that a sentence explains
EXIT_USAGE: Final = 2  # click's own code for bad options and arguments
EXIT_INTERRUPTED: Final = 130  # 128 + SIGINT, as shells expect


class CliError(AutotlsError):
    """A command cannot do what it was asked."""


class ManifestError(CliError):
    """Input is not what Kubernetes would accept as a manifest; the message starts with file and line."""

    def __init__(self, origin: str, line: int, reason: str, *, hint: str = "") -> None:
        super().__init__(f"{origin}:{line}: {reason}", hint=hint)
        self.origin = origin
        self.line = line
        self.reason = reason
