"""Distinct AdmissionReviews of 12-18 KB, as a ReplicaSet controller's pods arrive: owner, managedFields, environment.

The shapes are those of the recorded fixtures; the sizes those that stack measurements on a real API server gave.
"""

import json
import random
from typing import Any

SIZES = range(12_000, 18_001)


def reviews(count: int) -> list[bytes]:
    """`count` reviews that differ in names, uid, labels, containers and length; the same ones every time."""
    rng = random.Random(2102)
    return [_review(index, rng) for index in range(count)]


def _review(index: int, rng: random.Random) -> bytes:
    target = 12_000 + (18_000 - 12_000) * index // 100
    pod = _pod(index, containers=1 + index % 4)
    review = _envelope(index, pod)
    size = len(json.dumps(review))
    number = 0
    environment = pod["spec"]["containers"][0]["env"]
    while size < target:
        value = "".join(rng.choices("abcdefghijklmnopqrstuvwxyz /:=.", k=rng.randint(20, 60)))
        environment.append({"name": f"APP_SETTING_{number}", "value": value})
        size += len(value) + 43
        number += 1
    return json.dumps(review).encode()


def _pod(index: int, *, containers: int) -> dict[str, Any]:
    name = f"shop-{index}"
    hashed = f"{index:08x}aa"
    return {
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": {
            "generateName": f"{name}-{hashed}-",
            "namespace": f"team-{index % 10}",
            "creationTimestamp": None,
            "labels": {"app": name, "pod-template-hash": hashed, "app.kubernetes.io/part-of": "shop"},
            "annotations": {"checksum/config": f"{index:064x}", "prometheus.io/scrape": "true"},
            "ownerReferences": [
                {
                    "apiVersion": "apps/v1",
                    "kind": "ReplicaSet",
                    "name": f"{name}-{hashed}",
                    "uid": f"{index:08d}-7d34-4c66-b62e-07e6e1e66e3e",
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
            "managedFields": [_managed_fields(containers)],
        },
        "spec": {
            "volumes": [_token_volume(), {"name": "data", "emptyDir": {}}],
            "initContainers": [_container("prepare", index)] if index % 3 == 0 else None,
            "containers": [_container(f"c{number}", index) for number in range(containers)],
            "restartPolicy": "Always",
            "terminationGracePeriodSeconds": 30,
            "dnsPolicy": "ClusterFirst",
            "serviceAccountName": f"sa-{index % 20}",
            "serviceAccount": f"sa-{index % 20}",
            "securityContext": {"runAsNonRoot": True, "fsGroup": 2000},
            "schedulerName": "default-scheduler",
            "tolerations": [
                {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
                for key in ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
            ],
            "priority": 0,
            "enableServiceLinks": True,
            "preemptionPolicy": "PreemptLowerPriority",
        },
        "status": {},
    }


def _container(name: str, index: int) -> dict[str, Any]:
    return {
        "name": name,
        "image": f"registry.example.com/shop/{name}:{index}",
        "args": ["--listen=:8080", "--log=json"],
        "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
        "env": [
            {"name": "POD_IP", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "status.podIP"}}},
            {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "shop", "key": "token"}}},
        ],
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"cpu": "1", "memory": "256Mi"}},
        "volumeMounts": [
            {"name": "data", "mountPath": "/data"},
            {
                "name": "kube-api-access",
                "readOnly": True,
                "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount",
            },
        ],
        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8080, "scheme": "HTTP"}, "periodSeconds": 5},
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
        "imagePullPolicy": "IfNotPresent",
        "securityContext": {"capabilities": {"drop": ["ALL"]}, "allowPrivilegeEscalation": False},
    }


def _token_volume() -> dict[str, Any]:
    return {
        "name": "kube-api-access",
        "projected": {
            "sources": [
                {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            ],
            "defaultMode": 420,
        },
    }


def _managed_fields(containers: int) -> dict[str, Any]:
    fields: dict[str, Any] = {
        f'k:{{"name":"c{number}"}}': {
            field: {} for field in (".", "f:args", "f:env", "f:image", "f:imagePullPolicy", "f:name", "f:ports")
        }
        for number in range(containers)
    }
    return {
        "manager": "kube-controller-manager",
        "operation": "Update",
        "apiVersion": "v1",
        "time": "2026-01-01T00:00:00Z",
        "fieldsType": "FieldsV1",
        "fieldsV1": {"f:metadata": {"f:generateName": {}, "f:labels": {".": {}}}, "f:spec": {"f:containers": fields}},
    }


def _envelope(index: int, pod: dict[str, Any]) -> dict[str, Any]:
    return {
        "kind": "AdmissionReview",
        "apiVersion": "admission.k8s.io/v1",
        "request": {
            "uid": f"705ab4f5-6393-11e8-b7cc-{index:012x}",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "requestKind": {"group": "", "version": "v1", "kind": "Pod"},
            "requestResource": {"group": "", "version": "v1", "resource": "pods"},
            "namespace": f"team-{index % 10}",
            "operation": "CREATE",
            "userInfo": {
                "username": "system:serviceaccount:kube-system:replicaset-controller",
                "groups": ["system:serviceaccounts", "system:authenticated"],
            },
            "object": pod,
            "oldObject": None,
            "dryRun": False,
            "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"},
        },
    }
