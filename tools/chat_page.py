"""A page of this machine alone on which several models answer a question side by side."""

import json
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Protocol

from snaketune.core.errors import UserError
from snaketune.reporting.templates import render

TEMPLATE = Path(__file__).parents[1] / "report/chat.html.j2"
POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
LONGEST = 1 << 20


class Answering(Protocol):
    """What answers: a model with the conversation so far."""

    name: str
    messages: list[dict[str, Any]]

    def answer(self, question: str, new_tokens: int) -> Iterator[str]: ...


class Chat:
    """A conversation with several models, which are asked one question at a time."""

    def __init__(self, speakers: Sequence[Answering], ask: Callable[[str], str], new_tokens: int):
        self.speakers, self.ask, self.new_tokens = speakers, ask, new_tokens
        self.busy = threading.Lock()

    def forget(self) -> None:
        for speaker in self.speakers:
            speaker.messages.clear()

    def told(self, question: str) -> Generator[dict[str, Any], None, None]:
        """Yield the answers piece by piece, those of all models in turn; a question that nobody waits for isn't remembered."""
        before = [len(speaker.messages) for speaker in self.speakers]
        left = {n: speaker.answer(self.ask(question), self.new_tokens) for n, speaker in enumerate(self.speakers)}
        try:
            while left:
                for n, pieces in [*left.items()]:
                    if (piece := next(pieces, None)) is None:
                        del left[n]
                    else:
                        yield {"speaker": n, "piece": piece}
        except (UserError, RuntimeError) as error:
            yield {"error": f"{error}: start a new conversation"}
        finally:
            if left:
                for speaker, kept in zip(self.speakers, before, strict=True):
                    del speaker.messages[kept:]


def server(chat: Chat, title: str, port: int) -> ThreadingHTTPServer:
    """Return a server on the loopback interface; port 0 takes any that is free."""
    page = render(TEMPLATE, True, {"title": title, "names": [speaker.name for speaker in chat.speakers]}).encode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self._of_this_page() and self.path == "/":
                self._begin(HTTPStatus.OK, "text/html; charset=utf-8")
                self.wfile.write(page)
            else:
                self.send_error(HTTPStatus.NOT_FOUND)

        def do_POST(self) -> None:
            # JSON can't be sent from another site's page without asking first, and nobody answers that.
            length = self.headers.get("Content-Length") or "0"
            allowed = self._of_this_page() and self.headers.get("Content-Type") == "application/json"
            if not allowed or not length.isdecimal() or int(length) > LONGEST:
                self.send_error(HTTPStatus.FORBIDDEN)
                return
            try:
                question = str(json.loads(self.rfile.read(int(length))).get("question", ""))
            except (ValueError, AttributeError):
                self.send_error(HTTPStatus.BAD_REQUEST, "expected an object of JSON")
                return
            with chat.busy:
                self._begin(HTTPStatus.OK, "application/x-ndjson")
                if self.path == "/new":
                    chat.forget()
                    return
                answers = chat.told(question)
                try:
                    for one in answers:
                        self.wfile.write(json.dumps(one).encode() + b"\n")
                except ConnectionError:
                    answers.close()

        def _of_this_page(self) -> bool:
            """Refuse other names of this machine: a site may give its own name this address."""
            host, _, port = self.headers.get("Host", "").rpartition(":")
            return host in ("127.0.0.1", "localhost") and port == str(self.connection.getsockname()[1])

        def _begin(self, status: HTTPStatus, kind: str) -> None:
            self.send_response(status)
            for name, value in (
                ("Content-Type", kind),
                ("Content-Security-Policy", POLICY),
                ("Referrer-Policy", "no-referrer"),
                ("X-Content-Type-Options", "nosniff"),
                ("Cache-Control", "no-store"),
            ):
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Say nothing of each request."""

    try:
        return ThreadingHTTPServer(("127.0.0.1", port), Handler)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or "expected a number from 0 to 65535"
        raise UserError(f"--port {port}: {reason}; give another one") from None
