"""Calls of the official Kubernetes client that survive a busy or restarting API server."""

import json
import time
from collections.abc import Callable
from typing import Any

from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.config.config_exception import ConfigException
from urllib3.exceptions import HTTPError

from snaketune.core.errors import UserError

PASSING = (429, 500, 502, 503, 504)
TRIES = 9
LONGEST_PAUSE = 60.0
# Seconds for one answer: without a limit the client waits forever on a dead connection.
TIMEOUT = 60


class Cluster:
    """The custom resources and ConfigMaps of one namespace."""

    def __init__(self, namespace: str, context: str | None, pause: float):
        """``pause``: seconds before the first repetition of a failed call; each further one doubles it."""
        self.namespace, self.context, self.pause = namespace, context, pause
        self._connect()

    def _connect(self) -> None:
        try:
            try:
                config.load_kube_config(context=self.context)
            except ConfigException:
                if self.context:
                    raise
                config.load_incluster_config()
        except (ConfigException, OSError, ValueError) as error:
            raise UserError(f"no cluster is configured ({error}): set KUBECONFIG, or platform.context") from None
        configuration = client.Configuration.get_default_copy()
        # Retried below and nowhere else: urllib3 would wait as long as any Retry-After says.
        configuration.retries = False
        api = client.ApiClient(configuration)
        self.core, self.custom = client.CoreV1Api(api), client.CustomObjectsApi(api)

    def call(self, what: str, function: Callable[["Cluster"], Any]) -> Any:
        """The answer of a call, retried while the server is busy or unreachable.

        Raises:
            ApiException: 404 or 409, for the caller to judge.
            UserError: the server refuses, or stays unreachable.
        """
        reason, renewed = "", False
        for attempt in range(TRIES):
            pause = min(LONGEST_PAUSE, self.pause * 2**attempt)
            try:
                return function(self)
            except ApiException as error:
                if error.status in (404, 409):
                    raise
                if error.status == 401 and not renewed:
                    # A token may expire while the job waits; the kubeconfig can fetch another.
                    renewed = True
                    self._connect()
                    continue
                if error.status not in PASSING:
                    raise UserError(f"{what}: {reason_of(error)}") from None
                reason = reason_of(error)
                asked = (error.headers or {}).get("Retry-After", "")
                pause = max(pause, min(LONGEST_PAUSE, float(asked))) if asked.isdecimal() else pause
            except HTTPError as error:
                reason = f"the API server doesn't answer ({type(error).__name__})"
            if attempt + 1 < TRIES:
                print(f"{what}: {reason}; trying again in {pause:.0f} s", flush=True)
                time.sleep(pause)
        raise UserError(f"{what}: {reason}, {TRIES} times: run snakemake again later; nothing is created twice")


def reason_of(error: ApiException) -> str:
    """Return an API server's refusal on one line, with what to do."""
    try:
        message = str(json.loads(error.body or "")["message"])
    except (ValueError, KeyError, TypeError):
        message = str(error.reason)
    hint = {
        401: "the cluster rejects your credentials: log in again",
        403: "ask for the permission, or fix what the operator refuses",
        429: "the API server is busy",
    }.get(int(error.status or 0))
    return f"{error.status} {' '.join(message.split())}" + (f" ({hint})" if hint else "")
