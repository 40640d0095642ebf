"""Pods with real Envoys for the benchmarks of the data plane: network namespaces, and bootstraps other than ours."""

import os
import shutil
import subprocess
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import yaml

from tests.discovery.fleet import Member
from tests.proxy.namespaces import eventually

REPOSITORY: Final = Path(__file__).resolve().parents[1]
ENVOY: Final = Path(sysconfig.get_path("purelib")) / "envoy" / "_bin" / "envoy"
APP_PORT: Final = 8080
_EXTENSIONS: Final = "type.googleapis.com/envoy.extensions.filters"
_BODY: Final = "x" * 1024
Bootstrap = dict[str, Any]


def cpu_s(pid: int) -> float:
    """Seconds that the threads of a process have run so far, to the nanosecond (proc(5), schedstat)."""
    return sum(int((task / "schedstat").read_text().split()[0]) for task in Path(f"/proc/{pid}/task").iterdir()) / 1e9


def anonymous_bytes(pid: int) -> int:
    """Anonymous resident memory: what a pod pays for beside the file pages that all Envoys of a node share."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no RssAnon")


def proxy_folder(folder: Path, text: str) -> Path:
    """A copy of proxy/ whose bootstrap is `text`."""
    shutil.copytree(REPOSITORY / "proxy", folder)
    (folder / "bootstrap.yaml.in").write_text(text)
    return folder


def our_bootstrap(edit: Callable[[Bootstrap], None]) -> str:
    """Our own template, IPv4 and with an identity, changed by `edit`; names in @ are left to autotls-proxy."""
    kept: list[str] = []
    open_: list[bool] = []
    for line in (REPOSITORY / "proxy" / "bootstrap.yaml.in").read_text().splitlines():
        if line.startswith("#if "):
            open_.append(line == "#if identity")
        elif line == "#endif":
            open_.pop()
        elif all(open_):
            # YAML gives @ to nobody; bare it is an error.
            kept.append(line.replace("port_value: @DISCOVERY_PORT@", 'port_value: "@DISCOVERY_PORT@"'))
    bootstrap: Bootstrap = yaml.safe_load("\n".join(kept))
    edit(bootstrap)
    text = yaml.safe_dump(bootstrap, sort_keys=False, width=1000)
    return text.replace("'@DISCOVERY_PORT@'", "@DISCOVERY_PORT@")


def without_inbound_tls(bootstrap: Bootstrap) -> None:
    """15108 takes plaintext HTTP and sends it to the application, everything else as it was."""
    for listener in bootstrap["static_resources"]["listeners"]:
        if listener["name"] == "inbound_mtls_v4":
            del listener["listener_filters"], listener["filter_chain_matcher"]
            http = next(chain for chain in listener["filter_chains"] if chain["name"] == "http")
            del http["transport_socket"]
            dial = http["filters"][0].pop("config_discovery")["default_config"]
            text = dial["on_new_connection"][0]["format_string"]["text_format_source"]
            text["inline_string"] = f"%DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT%:{APP_PORT}"
            http["filters"][0]["typed_config"] = dial
            listener["filter_chains"] = [http]


class App:
    """An HTTP server that answers at once with 1 kB: an Envoy too, since nothing that is faster is at hand."""

    def __init__(self, member: Member, folder: Path) -> None:
        manager = {
            "@type": f"{_EXTENSIONS}.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "app",
            "generate_request_id": False,
            "route_config": {
                "virtual_hosts": [{
                    "name": "all", "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"},
                                "direct_response": {"status": 200, "body": {"inline_string": _BODY}}}],
                }],
            },
            "http_filters": [{
                "name": "router",
                "typed_config": {"@type": f"{_EXTENSIONS}.http.router.v3.Router"},
            }],
        }  # fmt: skip
        listener = {
            "address": {"socket_address": {"address": member.address, "port_value": APP_PORT}},
            "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
        }
        file = folder / f"{member.name}-app.yaml"
        file.write_text(yaml.safe_dump({"static_resources": {"listeners": [listener]}}))
        self._process = subprocess.Popen(
            ["ip", "netns", "exec", member.network.namespace, str(ENVOY), "--config-path", str(file),
             "--concurrency", "1", "--disable-hot-restart", "--log-level", "error"],
            env={"PATH": os.environ["PATH"]},
        )  # fmt: skip
        eventually(lambda: member.network.connect(member.address, APP_PORT).close() is None, what="the app")

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(10)
