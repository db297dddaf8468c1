"""Create KAITO Workspaces in a cluster once, and wait for them."""

import datetime
import time
from typing import Any

from kubernetes.client.exceptions import ApiException

from snaketune.core.errors import UserError
from snaketune.platforms.kaito.cluster_client import TIMEOUT, Cluster
from snaketune.platforms.kaito.manifests import DIGEST

RESOURCE = ("kaito.sh", "v1beta1")
PLURAL = "workspaces"


def ensure(cluster: Cluster, manifest: dict[str, Any]) -> None:
    """Create a ConfigMap or a Workspace unless it exists.

    Raises:
        UserError: the cluster refuses it, or has a different one with that name.
    """
    kind, metadata, namespace = manifest["kind"], manifest["metadata"], cluster.namespace
    what = f"{kind} {metadata['name']}"

    def create() -> Any:
        if kind == "ConfigMap":
            return cluster.core.create_namespaced_config_map(namespace, manifest, _request_timeout=TIMEOUT)
        return cluster.custom.create_namespaced_custom_object(
            *RESOURCE, namespace, PLURAL, manifest, field_validation="Strict", _request_timeout=TIMEOUT
        )

    try:
        cluster.call(what, create)
        print(f"created {what} in namespace {namespace}", flush=True)
    except ApiException as error:
        if error.status == 404:
            raise UserError(
                f"{what}: the cluster has no namespace {namespace}, or no KAITO ({PLURAL}.{RESOURCE[0]})"
            ) from None
        found = (read(cluster, kind, metadata["name"]) or {}).get("metadata", {})
        if found.get("annotations", {}).get(DIGEST) != metadata["annotations"][DIGEST]:
            raise UserError(
                f"{what} exists already, but was created from other parameters: delete it, or use another namespace"
            ) from None
        if found.get("deletionTimestamp"):
            raise UserError(f"{what} is being deleted: run snakemake again once it is gone") from None
        print(f"{what} exists already", flush=True)


def read(cluster: Cluster, kind: str, name: str) -> dict[str, Any] | None:
    """Return a ConfigMap or a Workspace as the API server's JSON, or None if it doesn't exist."""

    def get() -> Any:
        if kind == "ConfigMap":
            return cluster.core.read_namespaced_config_map(name, cluster.namespace, _request_timeout=TIMEOUT)
        return cluster.custom.get_namespaced_custom_object(
            *RESOURCE, cluster.namespace, PLURAL, name, _request_timeout=TIMEOUT
        )

    try:
        answer = cluster.call(f"{kind} {name}", get)
    except ApiException:
        # A 404: reading meets no conflict.
        return None
    found: dict[str, Any] = cluster.core.api_client.sanitize_for_serialization(answer)
    return found


def wait(cluster: Cluster, name: str, seconds: float) -> dict[str, Any]:
    """Wait for a Workspace to succeed, print its progress and return its status.

    Raises:
        UserError: it failed or was deleted.
    """
    before = ""
    while True:
        found = read(cluster, "Workspace", name)
        if found is None:
            raise UserError(f"Workspace {name} was deleted before it finished: run snakemake again to create another")
        status = found.get("status") or {}
        state = status.get("state") or "Pending"
        missing = [
            f"{c['type']}: {c.get('message') or c.get('reason')}"
            for c in status.get("conditions", [])
            if c["status"] != "True"
        ]
        if (now := f"{name}: {state}" + (f" ({'; '.join(missing)})" if missing else "")) != before:
            print(now, flush=True)
            before = now
        if state == "Succeeded":
            return status
        if state == "Failed":
            raise UserError(
                f"KAITO reports {now}; `kubectl -n {cluster.namespace} logs job/{name}` has more. Fix the cause, delete the Workspace (kubectl -n {cluster.namespace} delete workspace {name}), and run snakemake again"
            )
        time.sleep(seconds)


def seconds_of(status: dict[str, Any]) -> float | None:
    """Return the duration of the tuning job, loading included, or None if the operator doesn't report it."""
    times = {c["type"]: c.get("lastTransitionTime") for c in status.get("conditions", []) if c["status"] == "True"}
    ends = [times.get(kind) for kind in ("JobStarted", "WorkspaceSucceeded")]
    if not all(ends):
        return None
    start, end = (datetime.datetime.fromisoformat(str(one)) for one in ends)
    return (end - start).total_seconds() or None
