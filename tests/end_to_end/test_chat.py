"""A run's model can be asked something, in any form that it has."""

import pytest
from support.experiments import RUNS
from support.workspace import Workspace

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
        ((RUNS,), "expected the directory of a run"),
        ((LORA, "--backend", "genai-int4"), "there is no genai-int4; there are torch, fp32, int4, int8"),
    ],
)
def test_what_isnt_there_is_named(finished: Workspace, arguments: tuple[str, ...], message: str) -> None:
    ran = finished.script("chat.py", *arguments, "?")
    assert ran.returncode == 1
    assert message in ran.stderr
