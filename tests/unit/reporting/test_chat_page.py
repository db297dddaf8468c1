"""The page of `make chat`: both models answer on it, it asks no other host, and no other site can ask it."""

import http.client
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, Request, expect, sync_playwright
from test_page_in_browser import CHROMIUM

from chat_page import Chat, server
from snaketune.core.errors import UserError

JSON = {"Content-Type": "application/json"}


class Echo:
    """Answers with the question, a word at a time."""

    def __init__(self, name: str, most: int = 9):
        self.name, self.most, self.messages = name, most, list[dict[str, Any]]()

    def answer(self, question: str, new_tokens: int) -> Iterator[str]:
        self.messages.append({"role": "user", "content": question})
        if len(self.messages) > self.most:
            raise UserError("the conversation is too long")
        for word in question.split()[:new_tokens]:
            yield f"{word} "
        self.messages.append({"role": "assistant", "content": question})


@pytest.fixture
def chat() -> Chat:
    return Chat([Echo("untuned"), Echo("lora", most=3)], "<{}>".format, 5)


@pytest.fixture
def port(chat: Chat) -> Iterator[int]:
    with server(chat, "tiny/tickets/lora/1, torch", 0) as page:
        threading.Thread(target=page.serve_forever, args=(0.05,), daemon=True).start()
        yield page.server_port
        page.shutdown()


def sent(port: int, path: str, body: object, headers: dict[str, str]) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET" if body is None else "POST", path, None if body is None else json.dumps(body), headers)
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def pieces(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


def test_the_answers_come_in_turn_and_are_remembered(chat: Chat, port: int) -> None:
    status, text = sent(port, "/ask", {"question": "a b"}, JSON)
    assert (status, pieces(text)) == (200, [{"speaker": n, "piece": f"{w} "} for w in ("<a", "b>") for n in (0, 1)])
    assert [len(one.messages) for one in chat.speakers] == [2, 2]
    sent(port, "/ask", {"question": "a b"}, JSON)
    # What one of them can't take, none remembers.
    assert "too long: start a new conversation" in pieces(sent(port, "/ask", {"question": "a"}, JSON)[1])[-1]["error"]
    assert [len(one.messages) for one in chat.speakers] == [4, 4]
    sent(port, "/new", {}, JSON)
    assert [one.messages for one in chat.speakers] == [[], []]


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        ({"question": "a"}, {"Content-Type": "text/plain"}),
        ([], JSON),
        ({"question": "a"}, {**JSON, "Content-Length": "-1"}),
        ({"question": "a"}, {**JSON, "Host": "evil.example"}),
        (None, {"Host": "evil.example:80"}),
    ],
)
def test_another_site_is_refused(chat: Chat, port: int, body: Any, headers: dict[str, str]) -> None:
    status, _ = sent(port, "/" if body is None else "/ask", body, headers)
    assert status in (400, 403, 404)
    assert chat.speakers[0].messages == []


def test_a_port_that_is_taken_or_none_is_named(chat: Chat, port: int) -> None:
    for taken in (port, 70000):
        with pytest.raises(UserError, match=f"--port {taken}: .*; give another one"):
            server(chat, "", taken)


@pytest.mark.skipif(CHROMIUM is None, reason="chromium isn't installed")
def test_both_answers_appear_and_no_other_host_is_asked(port: int) -> None:
    asked: list[str] = []
    with sync_playwright() as program, program.chromium.launch(executable_path=CHROMIUM) as browser:
        page: Page = browser.new_page()
        page.on("pageerror", lambda error: asked.append(str(error)))

        def note(request: Request) -> None:
            asked.append(request.url)

        page.on("request", note)
        page.goto(f"http://127.0.0.1:{port}/")
        page.get_by_label("Question").fill("which <b>team</b>?")
        page.keyboard.press("Enter")
        expect(page.locator(".answer:not(.waits)")).to_have_count(2)
        texts = page.locator(".answer").all_inner_texts()
        assert [text.split() for text in texts] == [[name, "<which", "<b>team</b>?>"] for name in ("untuned", "lora")]
        found = Axe().run(page).response["violations"]
        assert [one["id"] for one in found if one["impact"] in ("serious", "critical")] == []
        page.get_by_role("button", name="New conversation").click()
        expect(page.locator(".answer")).to_have_count(0)
    assert asked == [f"http://127.0.0.1:{port}/{path}" for path in ("", "ask", "new")]
