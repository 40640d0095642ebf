"""The servers that `bench.webhook` measures: `webhook|baseline PORT CERTIFICATES`.

`webhook` is the real application in the real server (webhook.server.serve) with a fixed view of a cluster; only
the API server is missing. `baseline` is what a tutorial would write: a FastAPI route that returns a fixed patch.
"""

import base64
import sys
from pathlib import Path
from typing import Any

import uvicorn
import uvloop
from fastapi import FastAPI, Request
from starlette.types import Receive, Scope, Send

from bench.reviews import reviews
from mesh.config import MeshConfig
from mesh.kubelet import KubeletVersion
from mesh.pod import Namespace, ObjectMeta
from mesh.review import decode_review
from mesh.spiffe import TrustDomain
from process.health import Readiness
from process.logs import configure_logs
from webhook.app import build_app
from webhook.decision import Inject, decide
from webhook.patch import build_encoded_patch
from webhook.server import Listen, serve
from webhook.tls import ServingCertificate


class FixedCluster:
    """Ten opted-in namespaces and one version of kubelet."""

    oldest_kubelet = KubeletVersion(1, 37)

    def __init__(self) -> None:
        self._namespaces = {
            name: Namespace(metadata=ObjectMeta(name=name, labels={"autotls.io/inject": "enabled"}))
            for name in (f"team-{number}" for number in range(10))
        }

    def namespace(self, name: str) -> Namespace | None:
        return self._namespaces.get(name)

    async def read_namespace(self, name: str, *, timeout_s: float) -> Namespace | None:
        return None


class Empty:
    """The cheapest endpoint the same application can have: reads the body, answers nothing."""

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})


def _webhook(port: int, certificates: Path) -> None:
    configure_logs()
    app = build_app(MeshConfig(), FixedCluster())
    app.add_route("/empty", Empty(), methods=["POST"])  # pyright: ignore[reportArgumentType]
    certificate = ServingCertificate(certificates)
    certificate.load()
    listen = Listen(host="127.0.0.1", port=port, drain_s=0)
    readiness = Readiness({"certificate": lambda: certificate.loaded})
    uvloop.run(serve(app, certificate, readiness, {"certificate": certificate.watch()}, listen=listen))


def _baseline(port: int, certificates: Path) -> None:
    app = FastAPI()
    patch = base64.b64encode(patch_of_this_size()).decode()

    @app.post("/mutate")
    async def mutate(request: Request) -> dict[str, Any]:  # pyright: ignore[reportUnusedFunction]
        review = await request.json()
        return {
            "apiVersion": "admission.k8s.io/v1",
            "kind": "AdmissionReview",
            "response": {
                "uid": review["request"]["uid"],
                "allowed": True,
                "patchType": "JSONPatch",
                "patch": patch,
            },
        }

    uvicorn.run(
        app,
        host="127.0.0.1",
        port=port,
        http="httptools",
        loop="uvloop",
        log_level="warning",
        access_log=False,
        ssl_certfile=str(certificates / "tls.crt"),
        ssl_keyfile=str(certificates / "tls.key"),
    )


def patch_of_this_size() -> bytes:
    """The patch that the webhook makes for the first review."""
    config = MeshConfig()
    pod = decode_review(reviews(1)[0]).pod
    assert pod is not None
    inject = decide(pod, Namespace(metadata=ObjectMeta(name="team-0")), config, called=True)
    assert isinstance(inject, Inject)
    identity = TrustDomain(config.trust_domain).workload("team-0", pod.spec.service_account)
    return build_encoded_patch(pod, identity, inject, config)


if __name__ == "__main__":
    kind, port, folder = sys.argv[1:]
    if kind == "webhook":
        _webhook(int(port), Path(folder))
    else:
        _baseline(int(port), Path(folder))
