"""A proxy that asks discovery, as a program: `python -m tests.cluster.asker ADDRESS PORT`.

It reads jobs from standard input and prints a line of JSON for each. It runs in the network of a pod or of the node
(nsenter).

A job: `node` (the node id that it claims), `identity`: a folder with tls.crt and tls.key, or null for no certificate;
`roots`: the file to check discovery's certificate with. The answer: `resources` (how many), or `code` of the refusal.
"""

import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc

from discovery.ads import METHOD
from discovery.api import discovery_pb2
from discovery.resources import LISTENER
from mesh import names

# Longer than a busy machine stands still.
_TIMEOUT_S = 120.0


def ask(target: str, job: dict[str, Any]) -> dict[str, Any]:
    folder = Path(job["identity"]) if job["identity"] else None
    pair = ((folder / "tls.key").read_bytes(), (folder / "tls.crt").read_bytes()) if folder else (None, None)
    credentials = grpc.ssl_channel_credentials(Path(job["roots"]).read_bytes(), *pair)
    name = f"{names.DISCOVERY}.{names.DEFAULT_CONTROL_PLANE_NAMESPACE}.svc"
    answered = threading.Event()

    def requests() -> Iterator[Any]:
        request = discovery_pb2.DeltaDiscoveryRequest(type_url=LISTENER)
        request.node.id = job["node"]
        yield request
        # A request stream that ends would end the answers too.
        answered.wait(_TIMEOUT_S)

    with grpc.secure_channel(target, credentials, (("grpc.ssl_target_name_override", name),)) as channel:
        call = channel.stream_stream(
            METHOD,
            request_serializer=discovery_pb2.DeltaDiscoveryRequest.SerializeToString,
            response_deserializer=discovery_pb2.DeltaDiscoveryResponse.FromString,
        )(requests(), timeout=_TIMEOUT_S)
        try:
            return {"resources": len(next(iter(call)).resources)}
        except grpc.RpcError as error:
            return {"code": error.code().name}
        finally:
            answered.set()
            call.cancel()


def main() -> None:
    target = f"{sys.argv[1]}:{sys.argv[2]}"
    for job in json.loads(sys.stdin.read()):
        print(json.dumps(ask(target, job)), flush=True)


if __name__ == "__main__":
    main()
