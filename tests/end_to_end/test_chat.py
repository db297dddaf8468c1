"""A run's model can be asked something, in any form that it has."""

import json
import subprocess
import urllib.request

import pytest
from support.experiments import RUNS
from support.workspace import Workspace, python

LORA = f"{RUNS}/lora/seed-1"


@pytest.mark.parametrize(
    ("arguments", "speakers"),
    [
        ((LORA,), ["untuned: ", "lora: "]),
        ((LORA, "--backend", "int8", "--alone"), ["lora: "]),
        ((f"{RUNS}/peft-prefix/seed-1", "--raw", "--backend", "onnx-fp32"), ["untuned: ", "peft-prefix: "]),
        ((f"{RUNS}/base/seed-0",), ["untuned: "]),
    ],
)
def test_a_run_answers(finished: Workspace, arguments: tuple[str, ...], speakers: list[str]) -> None:
    run, *options = arguments
    shown = finished.told("chat.py", run, "Sum the elements.", "And again.", "--new-tokens", "3", *options)
    starts = [line.partition(": ")[0] + ": " for line in shown.splitlines() if ": " in line]
    assert [one for one in starts if one in speakers] == 2 * speakers


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((RUNS,), "expected the directory of an existing run"),
        ((LORA, "--backend", "genai-int4"), "there is no genai-int4; available: torch, fp32, int4, int8"),
    ],
)
def test_what_isnt_there_is_named(finished: Workspace, arguments: tuple[str, ...], message: str) -> None:
    ran = finished.script("chat.py", *arguments, "?")
    assert ran.returncode == 1
    assert message in ran.stderr


def test_the_page_answers_as_the_terminal_does(finished: Workspace) -> None:
    asked = [LORA, "--new-tokens", "3"]
    command = [python(), "tools/chat.py", *asked, "--page"]
    with subprocess.Popen(command, cwd=finished.path, stdout=subprocess.PIPE, text=True) as ran:
        assert ran.stdout
        url, *_ = ran.stdout.readline().split()
        body, json_type = json.dumps({"question": "Sum the elements."}).encode(), {"Content-Type": "application/json"}
        with urllib.request.urlopen(urllib.request.Request(f"{url}ask", body, json_type), timeout=60) as answer:  # noqa: S310
            told = [json.loads(line) for line in answer]
        ran.terminate()
    texts = ["".join(one["piece"] for one in told if one["speaker"] == number) for number in (0, 1)]
    assert finished.told("chat.py", *asked, "Sum the elements.") == "untuned: {}\nlora: {}\n".format(*texts)
