"""The version of this control plane, as it is written into the annotation of every injected pod."""

from typing import Final

# Held equal to pyproject.toml by a test: importlib.metadata would cost a file search per start and does not
# work in an image that only copies the folders.
VERSION: Final = "0.1.0"
