"""Kubeconfig files with everything in them, so that they work from any folder and any shell."""

import base64
import json
from pathlib import Path
from typing import Final

from cluster.pki import KeyPair

_PRIVATE_MODE: Final = 0o600


def write(path: Path, *, server: str, authority: Path, client: KeyPair, name: str) -> None:
    """One cluster, one user, one context, all called `name`. JSON is YAML, and needs no quoting rules."""

    def embedded(file: Path) -> str:
        return base64.b64encode(file.read_bytes()).decode()

    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": {"server": server, "certificate-authority-data": embedded(authority)}}],
        "users": [
            {
                "name": name,
                "user": {
                    "client-certificate-data": embedded(client.certificate),
                    "client-key-data": embedded(client.key),
                },
            }
        ],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": name,
    }
    path.touch(_PRIVATE_MODE)
    path.write_text(json.dumps(document, indent=1) + "\n")
