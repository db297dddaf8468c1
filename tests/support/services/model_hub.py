"""A Hugging Face hub on the loopback interface that has one model: what `make pin` and fetching ask of it."""

import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

COMMIT = "fedcba9876543210fedcba9876543210fedcba98"


class _Hub(http.server.BaseHTTPRequestHandler):
    name: str
    directory: Path

    def do_HEAD(self) -> None:
        path, _, _ = self.path.partition("?")
        files = {one.name: one.read_bytes() for one in self.directory.iterdir()}
        known = {f"/{self.name}/resolve/{COMMIT}/{name}": data for name, data in files.items()}
        known[f"/api/models/{self.name}/revision/main"] = known[f"/api/models/{self.name}/revision/{COMMIT}"] = (
            json.dumps({"id": self.name, "sha": COMMIT, "cardData": {"license": "mit"}, "siblings": []}).encode()
        )
        tree = [
            {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}  # noqa: S324
            for name, data in files.items()
        ]
        known[f"/api/models/{self.name}/tree/{COMMIT}"] = json.dumps(tree).encode()
        body = known.get(path)
        self.send_response(200 if body is not None else 404)
        self.send_header("Content-Length", str(len(body or b"")))
        self.send_header("Content-Type", "application/json")
        self.send_header("ETag", f'"{hashlib.sha256(body or b"").hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        if body is None:
            self.send_header("X-Error-Code", "RepoNotFound")
        self.end_headers()
        if self.command == "GET" and body:
            self.wfile.write(body)

    do_GET = do_HEAD

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@contextmanager
def model_hub(name: str, directory: Path) -> Iterator[str]:
    """Serve the files of a directory as the model ``name`` at COMMIT, which is its main branch; yield the address."""
    handler = type("OneModel", (_Hub,), {"name": name, "directory": directory})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
