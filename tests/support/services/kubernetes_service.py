"""A Kubernetes API server on loopback with KAITO's Workspaces: enough for the official client.

It checks what it is sent by the definition of the resource, closed against unknown keys, and by the
rules of the operator's webhook, written here on their own. It proves what the client sends and
understands, not that a cluster does the same.
"""

import json
import os
import re
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import yaml
from support.services.openai_service import Failure, Fault, FaultyHandler

from snaketune.core.files import read_yaml

DEFINITION = Path(os.environ.get("SNAKETUNE_KAITO_CRD", Path(__file__).with_name("workspaces.crd.yaml")))
ROUTE = re.compile(
    r"^/(?:api/v1|apis/kaito\.sh/v1beta1)/namespaces/(?P<namespace>[^/]+)/(?P<plural>configmaps|workspaces)(?:/(?P<name>[^/]+))?$"
)
START = "2026-11-22T10:00:00Z"
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


def refused(code: int, message: str = "try later", **headers: str) -> Failure:
    """An API server's answer that is no object."""
    failure = Failure(code, message, **headers)
    failure.content = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code}
    return failure


class KubernetesService:
    """Holds objects until it is closed; a fault's route is like ``POST workspaces``.

    ``operator`` is called with each new Workspace, in a thread.
    """

    def __init__(self, operator: Callable[["KubernetesService", dict[str, Any]], None] | None = None):
        self.objects: dict[str, dict[str, Any]] = {"configmaps": {}, "workspaces": {}}
        self.made: list[str] = []
        self.faults: list[Fault] = []
        self.requests: list[str] = []
        self.tokens = {"planted-token"}
        self.operator, self.provisions, self.schema = operator, True, workspace_schema()
        self.address, self.lock = "", threading.RLock()
        self.watch: Callable[[str], None] | None = None

    def kubeconfig(self, path: Path) -> Path:
        """Write a kubeconfig of this server."""
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "loopback",
            "contexts": [{"name": "loopback", "context": {"cluster": "loopback", "user": "tester"}}],
            "clusters": [{"name": "loopback", "cluster": {"server": self.address}}],
            "users": [{"name": "tester", "user": {"token": "planted-token"}}],
        }
        path.write_text(yaml.safe_dump(content))
        return path

    def tell(self, name: str, state: str, **conditions: tuple[str, str, str]) -> None:
        """Set a Workspace's status; a condition is (status, time, message)."""
        told = [
            {"type": kind, "status": status, "lastTransitionTime": when, "reason": "Told", "message": message}
            for kind, (status, when, message) in conditions.items()
        ]
        with self.lock:
            self.objects["workspaces"][name]["status"] = {"state": state, "conditions": told}

    def answer(self, method: str, plural: str, name: str | None, body: bytes) -> tuple[int, Any]:
        known = self.objects[plural]
        if method == "POST":
            return 201, self.create(plural, known, json.loads(body))
        if name not in known:
            raise refused(404, f'{plural} "{name}" not found')
        return 200, known.pop(name) if method == "DELETE" else known[name]

    def create(self, plural: str, known: dict[str, Any], sent: dict[str, Any]) -> dict[str, Any]:
        name = str(sent["metadata"]["name"])
        if name in known:
            raise refused(409, f'{plural} "{name}" already exists')
        if plural == "workspaces":
            try:
                jsonschema.validate(sent, self.schema)
            except jsonschema.ValidationError as error:
                raise refused(422, f"{error.json_path}: {error.message}") from None
            if reason := refusal(sent, self.objects["configmaps"], self.provisions):
                raise refused(400, f'admission webhook "validation.workspace.kaito.sh" denied the request: {reason}')
            self.made.append(name)
        known[name] = sent
        if plural == "workspaces" and self.operator:
            threading.Thread(target=self.operator, args=(self, sent), daemon=True).start()
        return sent


def handler_of(service: KubernetesService) -> type[FaultyHandler]:
    class Handler(FaultyHandler):
        def serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            found = ROUTE.match(self.path.split("?")[0])
            plural, name = (found["plural"], found["name"]) if found else (self.path, None)
            self.handle_route(service, f"{self.command} {plural}", lambda: self.answered(plural, name, body))

        def answered(self, plural: str, name: str | None, body: bytes) -> tuple[int, Any]:
            if self.headers.get("Authorization", "").removeprefix("Bearer ") not in service.tokens:
                raise refused(401, "Unauthorized")
            if plural not in service.objects:
                raise refused(404, "the server could not find the requested resource")
            return service.answer(self.command, plural, name, body)

        do_GET = do_POST = do_DELETE = serve

    return Handler


def technique_on(volumes: Path) -> dict[str, object]:
    """LoRA on a cluster whose volumes are folders of this machine."""
    lora = read_yaml(Path(__file__).parents[3] / "config/techniques/lora.yaml")
    platform = {
        "type": "kaito",
        "instance_type": "Standard_NC24ads_A100_v4",
        "labels": {"apps": "snaketune"},
        "preset": "phi-3-mini-4k-instruct",
        "data": {"volume": {"volume": {"hostPath": {"path": f"{volumes}/data"}}, "path": f"{volumes}/data"}},
        "output": {
            "volume": {"hostPath": {"path": f"{volumes}/out-{{technique}}-{{seed}}"}},
            "path": f"{volumes}/out-{{technique}}-{{seed}}",
        },
    }
    return {**lora, "platform": platform}
