"""The table of claims is what its command writes from the files of the checkout."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from support.measurements import run_script

import write_claims
from snaketune.core.errors import UserError
from snaketune.reporting.difference import Difference


def test_the_page_is_what_the_command_writes(tmp_path: Path) -> None:
    page = write_claims.ROOT / "docs/claims.md"
    again = shutil.copy(page, tmp_path / "claims.md")
    run_script(write_claims, "--page", again)
    assert again.read_text() == page.read_text()
    assert "4.144 bits held per quantized weight, of which 0.017" in page.read_text()


def test_a_page_without_the_markers_is_one_message(tmp_path: Path) -> None:
    page = tmp_path / "claims.md"
    page.write_text("no marker\n")
    with pytest.raises(UserError, match="<!-- claims -->"):
        run_script(write_claims, "--page", page)
    assert page.read_text() == "no marker\n"


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> write_claims.Measured:
    return write_claims.Measured(tmp_path_factory.mktemp("runs"))


UP, DOWN, NONE = (Difference(*ends, higher_is_better=True) for ends in ((2, 1, 3), (-2, -3, -1), (0, -1, 1)))


@pytest.mark.parametrize(
    ("figure", "found", "claim", "verdict"),
    [
        ("gap", UP, "LoRA on par", "holds here: better"),
        ("gap", DOWN, "LoRA on par", "not here: worse"),
        ("gap", NONE, "LoRA on par", "no difference shown"),
        ("gap", DOWN, "QLoRA matches", "not here: worse"),
        ("gap", UP, "DoRA consistently", "holds here"),
        ("gap", DOWN, "DoRA consistently", "the opposite here"),
        ("gap", UP, "(IA)³ is stronger", "holds here"),
        ("gap", DOWN, "ZeRO computes", "differs here"),
        ("gap", NONE, "ZeRO computes", "no difference shown"),
        ("loss", NONE, "int4 keeps", "no loss shown"),
        ("loss", DOWN, "int4 keeps", "not at 135M with round-to-nearest: accuracy drops for full and LoRA"),
        ("bits", (4.3, 0.017), "QLoRA: NF4", "differs"),
        ("states", 100, "LoRA: 3 times", "less here"),
        ("states", 100, "ZeRO-3 divides", "differs"),
        ("kept", 100, "LoRA's checkpoint", "not as for parameters"),
        ("kept", 100, "ONNX Runtime's int4", "differs"),
        ("parameters", 100, "VeRA trains", "less here"),
    ],
)
def test_a_verdict_follows_from_its_figure(
    measured: write_claims.Measured, monkeypatch: pytest.MonkeyPatch, figure: str, found: Any, claim: str, verdict: str
) -> None:
    monkeypatch.setattr(measured, figure, lambda *_: found)
    (told,) = (row[-1] for row in write_claims.rows(measured) if row[0].startswith(claim))
    assert told.startswith(verdict)
