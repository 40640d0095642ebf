"""What commands import: most of the CPU of a short command is the libraries that it does not need."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

# Of the connection to an API server.
CLIENT = frozenset({"aiohttp", "asyncio", "prometheus_client", "ssl", "yarl"})
# The official client, and what it brings along: only for credentials that a program hands out.
OFFICIAL = frozenset({"kubernetes", "oauthlib", "pydantic", "requests", "urllib3"})
# Of the control plane's servers.
SERVERS = frozenset({"envoy", "fastapi", "grpc", "httptools", "jinja2", "starlette", "structlog", "uvicorn", "uvloop"})
NEVER = OFFICIAL | SERVERS | {"cryptography", "dashboard", "google"}
MANIFESTS = frozenset({"jsonpatch", "msgspec", "webhook", "yaml"})

RUN = """
import json, sys
from cli.main import run
code = run(sys.argv[1:])
print()
print(json.dumps([code, sorted({name.partition(".")[0] for name in sys.modules})]))
"""

MANIFEST = """
apiVersion: v1
kind: Pod
metadata: {name: web}
spec: {containers: [{name: web, image: web}]}
"""
NOBODY = {
    "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
    "users": [{"name": "u", "user": {"token": "abc"}}],
    "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
    "current-context": "x",
}


@pytest.mark.parametrize(
    ("arguments", "code", "absent"),
    [
        ("--help", 0, NEVER | CLIENT | MANIFESTS | {"telemetry"}),
        ("completion bash", 0, NEVER | CLIENT | MANIFESTS | {"telemetry"}),
        ("version --client", 0, NEVER | CLIENT | {"jsonpatch", "webhook", "telemetry"}),
        ("version --kubeconfig=FOLDER/config", 0, NEVER | {"jsonpatch", "webhook", "telemetry"}),
        ("inject FOLDER/app.yml --ignore-cluster", 0, NEVER | CLIENT | {"telemetry"}),
        ("inject FOLDER/app.yml --kubeconfig=FOLDER/absent", 0, NEVER | CLIENT | {"telemetry"}),
        ("inject FOLDER/app.yml --kubeconfig=FOLDER/config", 0, NEVER | {"telemetry"}),
        ("uninject FOLDER/app.yml", 0, NEVER | CLIENT | {"telemetry"}),
        ("stat --kubeconfig=FOLDER/config", 1, NEVER | {"jsonpatch", "webhook"}),
        ("edges --kubeconfig=FOLDER/config", 1, NEVER | {"jsonpatch", "webhook"}),
        ("check --kubeconfig=FOLDER/config", 1, OFFICIAL | SERVERS | {"dashboard", "google", "jsonpatch"}),
    ],
)
def test_a_command_imports_nothing_heavy_that_it_does_not_need(
    tmp_path: Path, arguments: str, code: int, absent: frozenset[str]
) -> None:
    (tmp_path / "config").write_text(json.dumps(NOBODY))
    (tmp_path / "app.yml").write_text(MANIFEST)
    words = arguments.replace("FOLDER", str(tmp_path)).split()
    done = subprocess.run([sys.executable, "-c", RUN, *words], capture_output=True, text=True, check=True)
    found, modules = json.loads(done.stdout.splitlines()[-1])
    assert found == code, done.stderr
    assert absent.intersection(modules) == set()


def test_what_must_not_be_imported_is_spelled_as_it_is_installed() -> None:
    for name in NEVER | CLIENT | MANIFESTS:
        assert importlib.util.find_spec(name), name
