"""A loopback stand-in of Azure for command jobs: the workspace, its blob storage, and a token for both.

Real clients reach it by a proxy that sends every host to one TLS server, so that they use their own
addresses. It shows what the official SDK sends and takes, not that Azure would accept it.
"""

import datetime
import json
import select
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from support.services.certificates import certificate

BLOBS = "account.blob.core.windows.net"
HOSTS = ("management.azure.com", BLOBS)
TOKEN = "a-token-of-the-loopback"  # noqa: S105


class Azure:
    """State of the workspace, and two servers: TLS for every host, and the proxy and token before it."""

    def __init__(self, directory: Path, states: list[str] | None = None, size: str = "Standard_NC6s_v3"):
        self.jobs: dict[str, dict[str, Any]] = {}
        self.blobs: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.unknown: list[str] = []
        self.states = states or ["Queued", "Running", "Completed"]
        self.size = size
        # What the machine would have written, below the job's results.
        self.results = {"results/summary.csv": b"model,value\n", "results/runs/a/manifest.json": b"{}"}
        self.certificate, context = certificate(directory, HOSTS)
        self.tls = ThreadingHTTPServer(("127.0.0.1", 0), self._handler(Service))
        self.tls.socket = context.wrap_socket(self.tls.socket, server_side=True)
        self.front = ThreadingHTTPServer(("127.0.0.1", 0), self._handler(Front))
        for server in (self.tls, self.front):
            threading.Thread(target=server.serve_forever, daemon=True).start()

    def _handler(self, kind: type[BaseHTTPRequestHandler]) -> type[BaseHTTPRequestHandler]:
        return type(kind.__name__, (kind,), {"azure": self})

    def environment(self) -> dict[str, str]:
        """Variables with which real clients come here, and nowhere else."""
        front = f"http://127.0.0.1:{self.front.server_address[1]}"
        return {
            "HTTPS_PROXY": front,
            "NO_PROXY": "127.0.0.1",
            "REQUESTS_CA_BUNDLE": str(self.certificate),
            "SSL_CERT_FILE": str(self.certificate),
            # A managed identity, as Azure's own machines have one.
            "AZURE_TOKEN_CREDENTIALS": "managedidentitycredential",
            "IDENTITY_ENDPOINT": f"{front}/token",
            "IDENTITY_HEADER": "loopback",
            "AZURE_SUBSCRIPTION_ID": "00000000-0000-0000-0000-000000000000",
            "AZURE_RESOURCE_GROUP": "group",
            "AZURE_ML_WORKSPACE": "workspace",
        }

    def close(self) -> None:
        for server in (self.tls, self.front):
            server.shutdown()
            server.server_close()

    def finish(self, key: str) -> None:
        uri = self.jobs[key]["properties"]["outputs"]["results"]["uri"]
        folder = uri.partition("/paths/")[2]
        self.blobs |= {f"container/{folder}/{name}": content for name, content in self.results.items()}


class Front(BaseHTTPRequestHandler):
    """The proxy; and tokens, which are asked for over plain http on the machine itself."""

    azure: Azure

    def do_CONNECT(self) -> None:
        if self.path.rsplit(":", 1)[0] not in HOSTS:
            self.azure.unknown.append(f"CONNECT {self.path}")
            self.send_error(502)
            return
        with socket.create_connection(self.azure.tls.server_address[:2]) as inner:
            self.send_response(200)
            self.end_headers()
            pair = {inner: self.connection, self.connection: inner}
            while ready := select.select([*pair], [], [], 60)[0]:
                for one in ready:
                    data = one.recv(65536)
                    if not data:
                        return
                    pair[one].sendall(data)

    def do_GET(self) -> None:
        expires = str(int(datetime.datetime.now().timestamp()) + 3600)
        told = {"access_token": TOKEN, "expires_on": expires, "resource": "r", "token_type": "Bearer"}
        body = json.dumps(told).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Tests print enough."""


class Service(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    azure: Azure

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _answer(self, status: int, body: Any = None, **headers: str) -> None:
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        headers.setdefault("Content-Type", "application/json")
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _handle(self) -> None:
        url = urlsplit(self.path)
        path, query, body = unquote(url.path), parse_qs(url.query), self._body()
        host = self.headers["Host"].split(":")[0]
        self.azure.asked.append(f"{self.command} {host}{path}")
        if host == BLOBS:
            self._blob(path.lstrip("/"), query, body)
        elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._answer(401, {"error": {"code": "Unauthorized", "message": "no token"}})
        else:
            self._workspace(path, json.loads(body) if body else {})

    def _workspace(self, path: str, body: dict[str, Any]) -> None:
        azure, (_, _, place) = self.azure, path.partition("/workspaces/workspace")
        parts = place.strip("/").split("/")
        named = {"id": path, "name": parts[-1], "type": parts[0]}
        if parts[0] == "computes":
            if parts[1] != "gpu-cluster":
                return self._answer(404, {"error": {"code": "NotFound", "message": "no such compute"}})
            scale = {"minNodeCount": 0, "maxNodeCount": 1, "nodeIdleTimeBeforeScaleDown": "PT120S"}
            machine = {"vmSize": azure.size, "vmPriority": "Dedicated", "scaleSettings": scale}
            told = {"computeType": "AmlCompute", "provisioningState": "Succeeded", "properties": machine}
            return self._answer(200, {**named, "location": "westus", "properties": told})
        if parts[0] == "jobs" and len(parts) == 2:
            return self._job(named, body)
        if parts[0] == "codes" and parts[-1] == "startPendingUpload":
            uri = f"https://{BLOBS}/code-{parts[1]}"
            sas = {"credentialType": "SAS", "sasUri": f"{uri}?sig=signed"}
            reference = {"blobUri": uri, "storageAccountArmId": "/account", "credential": sas}
            kind = {"pendingUploadId": "1", "pendingUploadType": "TemporaryBlobReference"}
            return self._answer(200, {**kind, "blobReferenceForConsumption": reference})
        if parts[0] in ("codes", "environments") and self.command == "PUT":
            return self._answer(201, {**named, **body})
        if parts[0] == "codes" and parts[-1] == "versions":
            return self._answer(200, {"value": []})
        if parts[0] == "datastores":
            store = {"datastoreType": "AzureBlob", "accountName": "account", "containerName": "container"}
            place = {"endpoint": "core.windows.net", "protocol": "https", "credentials": {"credentialsType": "None"}}
            return self._answer(200, {**named, "properties": {**store, **place, "isDefault": True}})
        azure.unknown.append(f"{self.command} {path}")
        return self._answer(404, {"error": {"code": "NotFound", "message": path}})

    def _job(self, named: dict[str, str], body: dict[str, Any]) -> None:
        jobs, name = self.azure.jobs, named["name"]
        if self.command == "PUT":
            if name in jobs:
                return self._answer(409, {"error": {"code": "Conflict", "message": "the job exists"}})
            jobs[name] = {**named, **body, "left": list(self.azure.states)}
        if name not in jobs:
            return self._answer(404, {"error": {"code": "NotFound", "message": "no such job"}})
        left = jobs[name]["left"]
        state = "NotStarted" if self.command == "PUT" else left[0]
        if self.command == "GET" and len(left) > 1:
            left.pop(0)
        if state == "Completed":
            self.azure.finish(name)
        told = {key: value for key, value in jobs[name].items() if key != "left"}
        return self._answer(200, {**told, "properties": {**told["properties"], "status": state}})

    def _blob(self, name: str, query: dict[str, list[str]], body: bytes) -> None:
        blobs = self.azure.blobs
        if query.get("comp") == ["list"]:
            kind = "<Properties><BlobType>BlockBlob</BlobType></Properties>"
            prefix = query.get("prefix", [""])[0]
            found = [one.partition("/")[2] for one in blobs if one.startswith(f"{name}/{prefix}")]
            items = "".join(f"<Blob><Name>{one}</Name>{kind}</Blob>" for one in sorted(found))
            text = f'<?xml version="1.0"?><EnumerationResults><Blobs>{items}</Blobs><NextMarker/></EnumerationResults>'
            return self._answer(200, text.encode(), Content_Type="application/xml")
        if self.command == "PUT":
            if query.get("comp") is None:
                blobs[name] = body
            return self._answer(201 if query.get("comp") is None else 200, None, ETag='"1"')
        if name not in blobs:
            return self._answer(404, None, x_ms_error_code="BlobNotFound")
        content = blobs[name]
        headers = {"ETag": '"1"', "x_ms_blob_type": "BlockBlob", "Content_Type": "application/octet-stream"}
        if not content:
            return self._answer(416 if "x-ms-range" in self.headers else 200, content, **headers)
        told = f"bytes 0-{len(content) - 1}/{len(content)}"
        return self._answer(206 if "x-ms-range" in self.headers else 200, content, Content_Range=told, **headers)

    do_GET = do_PUT = do_POST = do_HEAD = _handle

    def log_message(self, *_: Any) -> None:
        """Tests print enough."""
