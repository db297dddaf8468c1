"""Calls of the official Kubernetes client that survive a busy or restarting API server."""

import json
from collections.abc import Callable
from typing import Any

from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.config.config_exception import ConfigException
from tenacity import RetryCallState
from urllib3.exceptions import HTTPError

from snaketune.core.errors import UserError
from snaketune.platforms import retries

PASSING = (429, 500, 502, 503, 504)
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

    def call(self, what: str, function: Callable[[], Any]) -> Any:
        """Return the answer of a call, retried while the server is busy or unreachable.

        Raises:
            ApiException: 404 or 409, for the caller to judge.
            UserError: the server refuses, or stays unreachable.
        """

        def tell(state: RetryCallState) -> None:
            error, pause = state.outcome and state.outcome.exception(), state.next_action and state.next_action.sleep
            print(f"{what}: {reason_of(error)}; trying again in {pause:.0f} s", flush=True)

        try:
            return retries.retrying(passing, self.pause, LONGEST_PAUSE, tell)(self._authorized, function)
        except (ApiException, HTTPError) as error:
            if isinstance(error, ApiException) and error.status in (404, 409):
                raise
            again = f", {retries.TRIES} times: run snakemake again later; nothing is created twice"
            raise UserError(f"{what}: {reason_of(error)}" + (again if passing(error) else ""), passing(error)) from None

    def _authorized(self, function: Callable[[], Any]) -> Any:
        try:
            return function()
        except ApiException as error:
            if error.status != 401:
                raise
            # A token may expire while the job waits; the kubeconfig can fetch another.
            self._connect()
            return function()


def passing(error: BaseException) -> bool:
    return isinstance(error, HTTPError) or (isinstance(error, ApiException) and error.status in PASSING)


def reason_of(error: Any) -> str:
    """Return an API server's refusal on one line, with what to do."""
    if not isinstance(error, ApiException):
        return f"the API server doesn't answer ({type(error).__name__})"
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
