"""The table of claims is what its command writes from the files of the checkout."""

import shutil
from pathlib import Path

import pytest
from support.measurements import run_script

import write_claims
from snaketune.core.errors import UserError


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
