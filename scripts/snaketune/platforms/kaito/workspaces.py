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
    """Create an object unless it exists.

    Raises:
        UserError: the cluster refuses it, or has a different one with that name.
    """
    name, namespace = manifest["metadata"]["name"], cluster.namespace
    what = f"{manifest['kind']} {name}"
    try:
        if manifest["kind"] == "ConfigMap":
            cluster.call(
                what, lambda c: c.core.create_namespaced_config_map(namespace, manifest, _request_timeout=TIMEOUT)
            )
        else:
            cluster.call(
                what,
                lambda c: c.custom.create_namespaced_custom_object(
                    *RESOURCE, namespace, PLURAL, manifest, field_validation="Strict", _request_timeout=TIMEOUT
                ),
            )
        print(f"created {what} in namespace {namespace}", flush=True)
    except ApiException as error:
        if error.status == 404:
            raise UserError(
                f"{what}: the cluster has no namespace {namespace}, or no KAITO ({PLURAL}.{RESOURCE[0]})"
            ) from None
        found = read_workspace(cluster, name) if manifest["kind"] == "Workspace" else read_config(cluster, name)
        if found.get("annotations", {}).get(DIGEST) != manifest["metadata"]["annotations"][DIGEST]:
            raise UserError(
                f"{what} exists already, but was created from other parameters: delete it, or use another namespace"
            ) from None
        if found.get("deletionTimestamp"):
            raise UserError(f"{what} is being deleted: run snakemake again once it is gone") from None
        print(f"{what} exists already", flush=True)


def read_config(cluster: Cluster, name: str) -> dict[str, Any]:
    found = cluster.call(
        f"ConfigMap {name}",
        lambda c: c.core.read_namespaced_config_map(name, cluster.namespace, _request_timeout=TIMEOUT),
    )
    return {"annotations": found.metadata.annotations or {}, "deletionTimestamp": found.metadata.deletion_timestamp}


def workspace(cluster: Cluster, name: str) -> dict[str, Any] | None:
    """Return a Workspace, or None if it doesn't exist."""
    try:
        found: dict[str, Any] = cluster.call(
            f"Workspace {name}",
            lambda c: c.custom.get_namespaced_custom_object(
                *RESOURCE, cluster.namespace, PLURAL, name, _request_timeout=TIMEOUT
            ),
        )
        return found
    except ApiException as error:
        if error.status == 404:
            return None
        raise UserError(f"Workspace {name}: {error.status} {error.reason}") from None


def read_workspace(cluster: Cluster, name: str) -> dict[str, Any]:
    found = workspace(cluster, name)
    metadata: dict[str, Any] = (found or {}).get("metadata", {})
    return metadata


def wait(cluster: Cluster, name: str, seconds: float) -> dict[str, Any]:
    """Wait for a Workspace to succeed, print its progress and return its status.

    Raises:
        UserError: it failed or was deleted.
    """
    before = ""
    while True:
        found = workspace(cluster, name)
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
