"""Azure Resource Manager, blob storage and a managed identity on loopback, behind an HTTPS proxy of our own.

The SDK is told nothing: it asks management.azure.com and *.blob.core.windows.net through the proxy,
whose certificate the test has it trust. Documented routes of Azure ML jobs, computes, code, datastores
and serverless endpoints, with the states of a job. It shows what the SDK sends and takes, not that Azure would.
"""

import contextlib
import datetime
import json
import re
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from support.services.certificates import certificate
from support.services.openai_service import Failure, Fault, FaultyHandler, serving, token_answer

ARM = re.compile(r"^/subscriptions/([^/]+)/resourceGroups/([^/]+)/providers/[^/]+/workspaces/([^/]+)", re.IGNORECASE)
BLOBS = "loopback.blob.core.windows.net"
HOSTS = ("management.azure.com", BLOBS)


@dataclass
class AzureService:
    """The state of a workspace: its jobs, its blobs, its serverless endpoints."""

    trusted: Path
    context: ssl.SSLContext
    region: str = "eastus2"
    # What the next questions for a job are answered.
    states: list[str] = field(default_factory=lambda: ["Queued", "Running", "Completed"])
    # What a machine would have written, below the job's results.
    results: dict[str, bytes] = field(default_factory=dict)
    hosts: set[str] = field(default_factory=set)
    address: str = ""
    answers_at: str = ""
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    asked: dict[str, int] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    endpoints: dict[str, str] = field(default_factory=dict)
    tokens: dict[str, float] = field(default_factory=dict)
    token_seconds: float = 3600
    faults: list[Fault] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    watch: Any = None
    lock: Any = field(default_factory=threading.RLock)

    def identity(self) -> dict[str, str]:
        token = f"planted-token-{len(self.tokens)}"
        self.tokens[token] = time.time() + self.token_seconds
        return token_answer(token, self.tokens[token])

    @property
    def alive(self) -> list[str]:
        return [*self.jobs]

    def end(self, ending: str) -> None:
        self.states = [{"failed": "Failed", "cancelled": "Canceled"}[ending]]

    def environment(self) -> dict[str, str]:
        """Variables with which the SDK comes here and trusts the certificate."""
        return {
            "HTTPS_PROXY": self.address,
            "NO_PROXY": "127.0.0.1",
            "REQUESTS_CA_BUNDLE": str(self.trusted),
            "IDENTITY_ENDPOINT": f"{self.address}/identity",
            "IDENTITY_HEADER": "planted-header",
            "AZURE_SUBSCRIPTION_ID": "00000000-0000-0000-0000-000000000000",
            "AZURE_RESOURCE_GROUP": "group",
            "AZURE_ML_WORKSPACE": "ws",
        }

    def authorize(self, header: str) -> None:
        if self.tokens.get(header.removeprefix("Bearer "), 0) < time.time():
            raise Failure(401, "The access token is invalid or has expired", "InvalidAuthenticationToken")

    def managed(self, route: str, workspace: str, path: str, body: Any) -> tuple[int, Any]:
        """A request to Resource Manager, below a workspace."""
        match [route.split()[0], *(part for part in path.split("/") if part)]:
            case ["GET"]:
                properties = {"workspaceId": "w", "discoveryUrl": "https://management.azure.com/discovery"}
                return 200, {"id": workspace, "name": "ws", "location": self.region, "properties": properties}
            case ["GET", "computes", "gpu-cluster"]:
                scale = {"minNodeCount": 0, "maxNodeCount": 1, "nodeIdleTimeBeforeScaleDown": "PT120S"}
                machine = {"vmSize": "Standard_NC6s_v3", "vmPriority": "Dedicated", "scaleSettings": scale}
                told = {"computeType": "AmlCompute", "provisioningState": "Succeeded", "properties": machine}
                return 200, {
                    "id": f"{workspace}{path}",
                    "name": "gpu-cluster",
                    "location": self.region,
                    "properties": told,
                }
            case ["POST", "codes", name, *_, "startPendingUpload"]:
                uri = f"https://{BLOBS}/code-{name}"
                credential = {"credentialType": "SAS", "sasUri": f"{uri}?sig=planted-signature"}
                place = {"blobUri": uri, "storageAccountArmId": "/account", "credential": credential}
                kind = {"pendingUploadId": "1", "pendingUploadType": "TemporaryBlobReference"}
                return 200, {**kind, "blobReferenceForConsumption": place}
            case ["PUT", "codes" | "environments" as kind, *_, version]:
                return 201, {"id": f"{workspace}{path}", "name": version, "type": kind, **body}
            case ["GET", "codes", _, "versions"]:
                return 200, {"value": []}
            case ["GET", "datastores", *_]:
                return 200, datastore(workspace)
            case ["POST", "datastores", _, "listSecrets"]:
                return 200, {"secretsType": "Sas", "sasToken": "sv=2024-01-01&sig=planted-signature"}
            case ["PUT", "jobs", name]:
                if name in self.jobs:
                    raise Failure(400, f"A job with the name {name} already exists", "UserError")
                now = datetime.datetime.now(datetime.UTC).isoformat()
                content = {**body["properties"], "status": "NotStarted", "services": {}}
                self.jobs[name] = {
                    "id": f"{workspace}/jobs/{name}",
                    "name": name,
                    "type": "Microsoft.MachineLearningServices/workspaces/jobs",
                    "systemData": {"createdAt": now, "createdBy": "t", "createdByType": "User"},
                    "properties": content,
                }
                return 201, self.jobs[name]
            case ["GET", "jobs", name]:
                return 200, self.job(name)
            case ["GET", "serverlessEndpoints", name] if name in self.endpoints:
                properties = {
                    "authMode": "Key",
                    "modelSettings": {"modelId": self.endpoints[name]},
                    "inferenceEndpoint": {"uri": self.answers_at, "headers": {}},
                    "provisioningState": "Succeeded",
                    "endpointState": "Online",
                }
                return 200, {
                    "id": f"{workspace}/serverlessEndpoints/{name}",
                    "name": name,
                    "location": self.region,
                    "sku": {"name": "Consumption"},
                    "properties": properties,
                }
            case ["POST", "serverlessEndpoints", name, "listKeys"]:
                return 200, {"primaryKey": f"planted-key-of-{name}", "secondaryKey": "s"}
        raise Failure(404, f"{path} was not found", "ResourceNotFound")

    def job(self, name: str) -> dict[str, Any]:
        if name not in self.jobs:
            raise Failure(404, f"the job {name} was not found", "ResourceNotFound")
        content = self.jobs[name]["properties"]
        content["status"] = self.states[min(self.asked.get(name, 0), len(self.states) - 1)]
        self.asked[name] = self.asked.get(name, 0) + 1
        if content["status"] == "Completed":
            content["properties"] = {"StartTimeUtc": "2026-01-01T00:00:00", "EndTimeUtc": "2026-01-01T00:02:00"}
            if self.results:
                folder = content["outputs"]["results"]["uri"].partition("/paths/")[2]
                self.blobs |= {f"/rows/{folder}/{name}": data for name, data in self.results.items()}
        if content["status"] == "Failed":
            content["properties"] = {"ErrorMessage": "row 7 violates the usage policies"}
        return self.jobs[name]

    def blob(self, route: str, path: str, query: dict[str, list[str]], body: bytes) -> tuple[int, Any]:
        if query.get("comp") == ["list"]:
            kind = "<Properties><BlobType>BlockBlob</BlobType></Properties>"
            names = [name.removeprefix(f"{path}/") for name in self.blobs if name.startswith(f"{path}/")]
            found = [name for name in names if name.startswith(query.get("prefix", [""])[0])]
            items = "".join(f"<Blob><Name>{name}</Name>{kind}</Blob>" for name in found)
            listed = (
                f'<?xml version="1.0"?><EnumerationResults><Blobs>{items}</Blobs><NextMarker/></EnumerationResults>'
            )
            return 200, listed.encode()
        if route.startswith("PUT"):
            if "comp" not in query:
                self.blobs[path] = body
            return 200 if "comp" in query else 201, b""
        if path not in self.blobs:
            raise Failure(404, "no such blob", "BlobNotFound", x_ms_error_code="BlobNotFound")
        return 200, self.blobs[path]


def datastore(workspace: str) -> dict[str, Any]:
    properties = {
        "datastoreType": "AzureBlob",
        "accountName": "loopback",
        "containerName": "rows",
        "endpoint": "core.windows.net",
        "protocol": "https",
        "credentials": {"credentialsType": "Sas"},
        "isDefault": True,
    }
    return {"id": f"{workspace}/datastores/workspaceblobstore", "name": "workspaceblobstore", "properties": properties}


def handler_of(service: AzureService) -> type[BaseHTTPRequestHandler]:
    class Handler(FaultyHandler):
        def do_CONNECT(self) -> None:
            service.hosts.add(self.path.partition(":")[0])
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):
                self.connection = service.context.wrap_socket(self.connection, server_side=True)
                self.rfile = self.connection.makefile("rb")
                self.wfile = self.connection.makefile("wb")  # type: ignore[assignment]
                # Clients ask for a tunnel by HTTP/1.0, which would end after one answer.
                self.close_connection = False

        def serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            address = urlsplit(self.path)
            blob = "blob.core" in (self.headers.get("Host") or "")
            path = unquote(address.path) if blob else ARM.sub("", address.path)
            route = f"{self.command} {'blob' if blob else ''}{path}"
            query = parse_qs(address.query)
            self.handle_route(service, route, lambda: self.answered(route, path, query, body, blob))

        def answered(self, route: str, path: str, query: Any, body: bytes, blob: bool) -> tuple[int, Any]:
            if path.startswith("/identity"):
                return 200, service.identity()
            if blob:
                return service.blob(route, path, query, body)
            service.authorize(self.headers.get("Authorization", ""))
            found = ARM.match(self.path)
            if not found:
                raise Failure(404, f"no route {path}")
            return service.managed(route, found[0], path, json.loads(body or b"null"))

        def reply(self, status: int, answer: Any, **headers: str) -> None:
            kind = "application/xml" if isinstance(answer, bytes) and answer.startswith(b"<") else "application/json"
            own = {"ETag": '"0x1"', "Last_Modified": self.date_time_string(), "Content_Type": kind}
            if status == 200 and "x-ms-range" in self.headers:
                status, own["Content_Range"] = 206, f"bytes 0-{len(answer) - 1}/{len(answer)}"
            super().reply(status, answer, x_ms_blob_type="BlockBlob", **own, **headers)

        do_GET = do_POST = do_PUT = do_HEAD = serve

    return Handler


@contextlib.contextmanager
def azure_serving(directory: Path, **state: Any) -> Iterator[AzureService]:
    made = AzureService(*certificate(directory, HOSTS), **state)
    with serving(made, handler_of(made)):
        yield made
