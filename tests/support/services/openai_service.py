"""A loopback service with OpenAI's documented routes for files, fine-tuning jobs and chats, and their states.

It learns: a tuned model answers as the training row with the most common words. It fails as told:
each fault waits for the next request to its route.
"""

import base64
import contextlib
import email
import email.policy
import json
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

PREFIX = re.compile(r"^(/api/projects/[^/]+)?/(openai/deployments/(?P<deployment>[^/]+)|openai/v1|openai|v1)")


class Failure(Exception):
    """An answer that is no 200."""

    def __init__(self, status: int, message: str, code: str | None = None, **headers: str):
        super().__init__(message)
        self.status, self.content, self.headers = status, {"error": {"message": message, "code": code}}, headers


@dataclass
class Fault:
    """What befalls the next ``times`` requests of a route: an answer, or a cut after the work was done."""

    route: str
    times: int = 1
    failure: Failure | None = None
    then: Any = None


def storm(route: str, status: int, times: int) -> Fault:
    return Fault(route, times, Failure(status, "slow down", **{"retry_after_ms": "1"}))


@dataclass
class OpenAiService:
    """The state of the service; ``keys`` are those it takes, by ``Bearer`` or ``api-key``."""

    keys: set[str]
    models: list[str] = field(default_factory=lambda: ["gpt-test", "gpt-other"])
    ending: str = "succeeded"
    polls: int = 3
    clock: float = 0.0
    reject: str = ""
    encoded: bool = False
    token_seconds: float = 3600
    address: str = ""
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    contents: dict[str, bytes] = field(default_factory=dict)
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    expires: dict[str, float] = field(default_factory=dict)
    watch: Any = None
    lock: Any = field(default_factory=threading.RLock)

    def count(self, route: str) -> int:
        return sum(bool(re.fullmatch(route, one)) for one in self.requests)

    @property
    def alive(self) -> list[str]:
        return [name for name, job in self.jobs.items() if job["status"] not in ("failed", "cancelled")]

    def end(self, ending: str) -> None:
        """Let every job end as ``succeeded``, ``failed`` or ``cancelled``."""
        self.ending = ending

    def now(self) -> int:
        return int(time.time() + self.clock)

    def authorize(self, headers: Any) -> None:
        told = headers.get("api-key") or headers.get("Authorization", "").removeprefix("Bearer ")
        if told not in self.keys or time.time() > self.expires.get(told, float("inf")):
            raise Failure(401, f"Incorrect API key provided: {told}", "invalid_api_key")

    def identity(self) -> dict[str, Any]:
        token = f"token-{len(self.expires)}-planted"
        self.keys.add(token)
        self.expires[token] = time.time() + self.token_seconds
        return token_answer(token, self.expires[token])

    def answer(self, route: str, path: str, body: Any, query: dict[str, list[str]]) -> Any:
        match [part for part in path.split("/") if part]:
            case ["models"]:
                return page([{"id": name} for name in self.models])
            case ["files"] if route.startswith("POST"):
                return self.upload(*body)
            case ["files"]:
                return page(list(self.files.values()))
            case ["files", name]:
                return self.file(name)
            case ["files", name, "content"]:
                return self.contents[name]
            case ["fine_tuning", "jobs"] if route.startswith("POST"):
                return self.create(body)
            case ["fine_tuning", "jobs"]:
                found = sorted(self.jobs.values(), key=lambda job: job["id"])
                after = query.get("after", [""])[0]
                left = [job for job in found if job["id"] > after]
                # Of two at a time, so that a client must turn pages.
                return page(left[:2], len(left) > 2)
            case ["fine_tuning", "jobs", name]:
                return self.progressed(self.job(name))
            case ["fine_tuning", "jobs", name, "cancel"]:
                return self.job(name) | self.set(name, status="cancelled")
            case ["fine_tuning", "jobs", name, "events"]:
                return page([self.event(name, n) for n in reversed(range(self.job(name)["polled"]))])
            case ["chat", "completions"]:
                return self.chat(body)
        raise Failure(404, f"no route {path}")

    def upload(self, name: str, content: bytes) -> dict[str, Any]:
        key = f"file-{len(self.files)}"
        self.contents[key] = content
        self.files[key] = {"id": key, "filename": name, "bytes": len(content), "status": "uploaded"}
        return self.files[key]

    def file(self, name: str) -> dict[str, Any]:
        """A file that is asked for has been processed by then."""
        if name not in self.files:
            raise Failure(404, "no such file")
        self.files[name] |= {"status": "error" if self.reject else "processed", "status_details": self.reject or None}
        return self.files[name]

    def job(self, name: str) -> dict[str, Any]:
        if name not in self.jobs:
            raise Failure(404, "no such job", "not_found")
        return self.jobs[name]

    def set(self, name: str, **values: Any) -> dict[str, Any]:
        self.jobs[name] |= values
        return self.jobs[name]

    def create(self, body: dict[str, Any]) -> dict[str, Any]:
        self.bodies.append(body)
        if self.files.get(body["training_file"], {}).get("status") != "processed":
            raise Failure(400, "the training file isn't processed")
        name = f"ftjob-{len(self.jobs):04}"
        self.jobs[name] = {
            "id": name,
            "model": body["model"],
            "created_at": self.now(),
            "finished_at": None,
            "fine_tuned_model": None,
            "result_files": [],
            "status": "validating_files",
            "training_file": body["training_file"],
            "user_provided_suffix": body["suffix"],
            "metadata": body.get("metadata"),
            "hyperparameters": body["method"]["supervised"]["hyperparameters"],
            "trained_tokens": None,
            "error": None,
            "polled": 0,
        }
        return self.jobs[name]

    def progressed(self, job: dict[str, Any]) -> dict[str, Any]:
        job["polled"] += 1
        if job["status"] in ("succeeded", "failed", "cancelled"):
            return job
        if job["polled"] < self.polls:
            job["status"] = "queued" if job["polled"] == 1 else "running"
            return job
        job["status"], job["finished_at"] = self.ending, self.now()
        if self.ending == "succeeded":
            rows = self.contents[job["training_file"]].splitlines()
            job["trained_tokens"] = job["hyperparameters"]["n_epochs"] * sum(len(row.split()) for row in rows)
            job["fine_tuned_model"] = f"ft:{job['model']}:o:{job['user_provided_suffix']}:{job['id']}"
            text = b"step,train_loss,valid_loss\n1,2.5,\n2,1.5,1.75\n"
            content = base64.b64encode(text) if self.encoded else text
            job["result_files"] = [self.upload("step_metrics.csv", content)["id"]]
        else:
            job["error"] = {"code": "x", "message": "row 7 violates the usage policies", "param": None}
        return job

    def event(self, name: str, number: int) -> dict[str, Any]:
        return {"id": f"event-{name}-{number}", "created_at": self.now(), "message": f"Step {number}"}

    def chat(self, body: dict[str, Any]) -> dict[str, Any]:
        asked = Counter(re.findall(r"\w+", body["messages"][-1]["content"]))
        job = next((one for one in self.jobs.values() if one["fine_tuned_model"] == body["model"]), None)
        if job is None and body["model"] not in self.models:
            raise Failure(404, f"The model {body['model']} does not exist", "model_not_found")
        text = "I don't know"
        if job:
            lines = self.contents[job["training_file"]].decode("utf-8-sig").splitlines()
            chats = [json.loads(line)["messages"] for line in lines]
            near = max(chats, key=lambda chat: (Counter(re.findall(r"\w+", chat[-2]["content"])) & asked).total())
            text = near[-1]["content"]
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
        return {"id": "c", "model": body["model"], "choices": [choice]}


def token_answer(token: str, expires: float) -> dict[str, str]:
    """What a managed identity answers."""
    return {"access_token": token, "expires_on": str(int(expires)), "token_type": "Bearer", "resource": "r"}


def page(data: list[Any], more: bool = False) -> dict[str, Any]:
    return {"data": data, "has_more": more}


def uploaded(content: bytes, kind: str) -> tuple[str, bytes]:
    """Name and bytes of the file of a multipart form."""
    form = email.message_from_bytes(f"Content-Type: {kind}\r\n\r\n".encode() + content, policy=email.policy.HTTP)
    for part in form.iter_parts():  # type: ignore[attr-defined]
        if part.get_filename():
            return part.get_filename(), part.get_payload(decode=True)
    raise Failure(400, "the form has no file")


class FaultyHandler(BaseHTTPRequestHandler):
    """Answers requests, except those that a fault of the service befalls."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: Any) -> None:
        """Quiet."""

    def reply(self, status: int, answer: Any, **headers: str) -> None:
        content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        with contextlib.suppress(OSError):
            self.send_response(status)
            told = {"Content_Type": "application/json", "Content_Length": str(len(content)), **headers}
            for name, value in told.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

    def handle_route(self, service: Any, route: str, answered: Callable[[], tuple[int, Any]]) -> None:
        with service.lock:
            service.requests.append(route)
            fault = next((one for one in service.faults if one.times and re.fullmatch(one.route, route)), None)
            if fault:
                fault.times -= 1
        try:
            if fault and fault.failure:
                raise fault.failure
            with service.lock:
                status, answer = answered()
            if service.watch:
                service.watch(route)
            if not fault:
                return self.reply(status, answer)
            if fault.then:
                fault.then()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
        except Failure as failure:
            self.reply(failure.status, failure.content, **failure.headers)


def handler_of(service: OpenAiService) -> type[BaseHTTPRequestHandler]:
    class Handler(FaultyHandler):
        def date_time_string(self, timestamp: float | None = None) -> str:
            return formatdate(service.now(), usegmt=True)

        def serve(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            address = urlsplit(self.path)
            path = PREFIX.sub("", address.path)
            route = f"{self.command} {path}"
            self.handle_route(
                service, route, lambda: (200, self.answered(route, path, content, parse_qs(address.query)))
            )

        def answered(self, route: str, path: str, content: bytes, query: dict[str, list[str]]) -> Any:
            if path.startswith("/identity"):
                return service.identity()
            service.authorize(self.headers)
            kind = self.headers.get("Content-Type", "")
            body: Any = uploaded(content, kind) if kind.startswith("multipart") else json.loads(content or b"null")
            deployment = PREFIX.match(self.path)
            if deployment and deployment["deployment"] and isinstance(body, dict):
                body.setdefault("model", deployment["deployment"])
            return service.answer(route, path, body, query)

        do_GET = do_POST = serve

    return Handler


@contextlib.contextmanager
def serving(service: Any, handler: type[BaseHTTPRequestHandler] | None = None) -> Iterator[Any]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler or handler_of(service))
    server.daemon_threads = True
    service.address = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()
