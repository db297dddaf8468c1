"""A Kubernetes API server on loopback with KAITO's Workspaces: enough for the official client.

It checks what it is sent by the definition of the resource, closed against unknown keys, and by the
rules of the operator's webhook, written here on their own. It proves what the client sends and
understands, not that a cluster does the same.
"""

import json
import os
import re
import socket
import threading
from collections.abc import Callable
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jsonschema
import yaml

DEFINITION = Path(os.environ.get("SNAKETUNE_KAITO_CRD", Path(__file__).with_name("workspaces.crd.yaml")))
ROUTE = re.compile(
    r"^/(?:api/v1|apis/kaito\.sh/v1beta1)/namespaces/(?P<namespace>[^/]+)/(?P<plural>configmaps|workspaces)(?:/(?P<name>[^/]+))?$"
)
PRESETS = re.compile(r"^phi-(3-(mini|medium)-(4k|128k)-instruct|3\.5-mini-instruct|4(-mini-instruct)?)$")


def closed(schema: Any) -> Any:
    """A schema that takes no key it doesn't name: API servers drop those without a word."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: closed(value) for key, value in schema.items()}
    if (
        "properties" in schema
        and "additionalProperties" not in schema
        and "x-kubernetes-preserve-unknown-fields" not in schema
    ):
        found["additionalProperties"] = False
    return found


@cache
def workspace_schema(definition: Path = DEFINITION) -> Any:
    content = yaml.safe_load(definition.read_text())
    version = next(one for one in content["spec"]["versions"] if one["name"] == "v1beta1")
    return closed(version["schema"]["openAPIV3Schema"])


def refusal(workspace: dict[str, Any], configs: dict[str, Any], provisions: bool) -> str | None:
    """What the operator's webhook has against a Workspace."""
    resource, tuning, inference = workspace["resource"], workspace.get("tuning"), workspace.get("inference")
    if bool(tuning) == bool(inference):
        return "Either Inference or Tuning must be specified"
    if provisions != bool(resource.get("instanceType")):
        return "invalid value: resource.instanceType"
    if not PRESETS.match((tuning or inference)["preset"]["name"]):
        return "Unsupported preset name"
    if not tuning:
        return None
    if resource.get("count", 1) != 1:
        return "Tuning does not currently support multinode configurations: count"
    if tuning.get("method") not in ("lora", "qlora"):
        return "invalid value: Method"
    if len(tuning["input"].keys() & {"urls", "image", "volumeSource"}) != 1:
        return "Exactly one of URLs, Volume, or Image must be specified: input"
    if len(tuning["output"].keys() & {"image", "volumeSource"}) != 1:
        return "Exactly one of Volume or Image must be specified: output"
    if "image" in tuning["output"] and not tuning["output"].get("imagePushSecret"):
        return "Must specify imagePushSecret with destination image"
    config = configs.get(tuning["config"])
    if config is None:
        return f"ConfigMap '{tuning['config']}' specified in 'config' not found"
    sections = yaml.safe_load(config["data"]["training_config.yaml"])["training_config"]
    known = {"ModelConfig", "QuantizationConfig", "LoraConfig", "TrainingArguments", "DatasetConfig", "DataCollator"}
    if sections.keys() - known:
        return "Unrecognized section"
    bits = [bool(sections.get("QuantizationConfig", {}).get(f"load_in_{n}bit")) for n in (4, 8)]
    if sum(bits) != (tuning["method"] == "qlora"):
        return "load_in_4bit and load_in_8bit don't fit the method"
    return None


class KubernetesService:
    """Holds objects until it is closed; ``faults`` are used up, one a request that they fit.

    A fault is ``{"method", "plural", "status", "headers"}``, or ``"cut": True``: the request is
    done, but its answer never comes. ``operator`` is called with each new Workspace, in a thread.
    """

    def __init__(
        self, operator: Callable[["KubernetesService", dict[str, Any]], None] | None = None, provisions: bool = True
    ):
        self.objects: dict[str, dict[str, Any]] = {"configmaps": {}, "workspaces": {}}
        self.made: list[str] = []
        self.faults: list[dict[str, Any]] = []
        self.requests: list[tuple[str, str]] = []
        self.tokens = {"good"}
        self.operator, self.provisions, self.schema = operator, provisions, workspace_schema()
        self.lock = threading.RLock()
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                service.answer(self)

            do_POST = do_DELETE = do_GET

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def kubeconfig(self, path: Path, token: str = "good") -> Path:  # noqa: S107
        """Write a kubeconfig of this server."""
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "loopback",
            "contexts": [{"name": "loopback", "context": {"cluster": "loopback", "user": "tester"}}],
            "clusters": [{"name": "loopback", "cluster": {"server": f"http://127.0.0.1:{self.server.server_port}"}}],
            "users": [{"name": "tester", "user": {"token": token}}],
        }
        path.write_text(yaml.safe_dump(content))
        return path

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def tell(self, name: str, state: str, **conditions: tuple[str, str, str]) -> None:
        """Set a Workspace's status; a condition is (status, time, message)."""
        told = [
            {"type": kind, "status": status, "lastTransitionTime": when, "reason": "Told", "message": message}
            for kind, (status, when, message) in conditions.items()
        ]
        with self.lock:
            self.objects["workspaces"][name]["status"] = {"state": state, "conditions": told}

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path = request.path.split("?")[0]
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        route = ROUTE.match(path)
        self.requests.append((request.command, path))
        if request.headers.get("Authorization", "").removeprefix("Bearer ") not in self.tokens:
            return self.send(request, 401, "Unauthorized")
        if not route:
            return self.send(request, 404, "the server could not find the requested resource")
        plural, name = route["plural"], route["name"]
        fault = self.fault(request.command, plural)
        if fault and "status" in fault:
            return self.send(request, fault["status"], fault.get("message", "try later"), fault.get("headers"))
        with self.lock:
            code, content = self.done(request.command, plural, name, body)
        if fault:
            request.close_connection = True
            request.connection.shutdown(socket.SHUT_RDWR)
            return None
        return self.send(request, code, content)

    def fault(self, method: str, plural: str) -> dict[str, Any] | None:
        with self.lock:
            for one in self.faults:
                if one["method"] == method and one["plural"] == plural:
                    self.faults.remove(one)
                    return one
        return None

    def done(self, method: str, plural: str, name: str | None, body: bytes) -> tuple[int, Any]:
        known = self.objects[plural]
        if method == "POST":
            sent = json.loads(body)
            name = str(sent["metadata"]["name"])
            if name in known:
                return 409, f'{plural} "{name}" already exists'
            if plural == "workspaces":
                try:
                    jsonschema.validate(sent, self.schema)
                except jsonschema.ValidationError as error:
                    return 422, f"{error.json_path}: {error.message}"
                if reason := refusal(sent, self.objects["configmaps"], self.provisions):
                    return 400, f'admission webhook "validation.workspace.kaito.sh" denied the request: {reason}'
                self.made.append(name)
            known[name] = sent
            if plural == "workspaces" and self.operator:
                threading.Thread(target=self.operator, args=(self, sent), daemon=True).start()
            return 201, sent
        if name not in known:
            return 404, f'{plural} "{name}" not found'
        return (200, known.pop(name)) if method == "DELETE" else (200, known[name])

    def send(
        self, request: BaseHTTPRequestHandler, code: int, content: Any, headers: dict[str, str] | None = None
    ) -> None:
        if isinstance(content, str):
            content = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": content, "code": code}
        data = json.dumps(content).encode()
        request.send_response(code)
        for key, value in {
            "Content-Type": "application/json",
            "Content-Length": str(len(data)),
            **(headers or {}),
        }.items():
            request.send_header(key, value)
        request.end_headers()
        request.wfile.write(data)
