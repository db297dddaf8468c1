"""KAITO's Workspaces in a cluster: made once, and waited for."""

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
    """Make an object unless it is there already.

    Raises:
        UserError: the cluster refuses it, or has another one of that name.
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
        print(f"made {what} in namespace {namespace}", flush=True)
    except ApiException as error:
        if error.status == 404:
            raise UserError(
                f"{what}: the cluster has no namespace {namespace}, or no KAITO ({PLURAL}.{RESOURCE[0]})"
            ) from None
        found = read_workspace(cluster, name) if manifest["kind"] == "Workspace" else read_config(cluster, name)
        if found.get("annotations", {}).get(DIGEST) != manifest["metadata"]["annotations"][DIGEST]:
            raise UserError(
                f"{what} is there already, but wasn't made of this recipe: delete it, or take another namespace"
            ) from None
        if found.get("deletionTimestamp"):
            raise UserError(f"{what} is being deleted: run snakemake again when it is gone") from None
        print(f"{what} is there already", flush=True)


def read_config(cluster: Cluster, name: str) -> dict[str, Any]:
    found = cluster.call(
        f"ConfigMap {name}",
        lambda c: c.core.read_namespaced_config_map(name, cluster.namespace, _request_timeout=TIMEOUT),
    )
    return {"annotations": found.metadata.annotations or {}, "deletionTimestamp": found.metadata.deletion_timestamp}


def workspace(cluster: Cluster, name: str) -> dict[str, Any] | None:
    """A Workspace, or None where there is none."""
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
    """The status of a Workspace that succeeded; its progress is told on the way.

    Raises:
        UserError: it failed or is gone.
    """
    before = ""
    while True:
        found = workspace(cluster, name)
        if found is None:
            raise UserError(f"Workspace {name} was deleted before it was done: run snakemake again to make another")
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
                f"KAITO says that {now}; `kubectl -n {cluster.namespace} logs job/{name}` has more. Mend it, delete the Workspace (kubectl -n {cluster.namespace} delete workspace {name}), and run snakemake again"
            )
        time.sleep(seconds)


def seconds_of(status: dict[str, Any]) -> float | None:
    """From the start of the tuning job to its end, loading included; None where the operator doesn't say."""
    times = {c["type"]: c.get("lastTransitionTime") for c in status.get("conditions", []) if c["status"] == "True"}
    ends = [times.get(kind) for kind in ("JobStarted", "WorkspaceSucceeded")]
    if not all(ends):
        return None
    start, end = (datetime.datetime.fromisoformat(str(one)) for one in ends)
    return (end - start).total_seconds() or None
