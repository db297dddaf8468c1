"""The table of claims is what its command writes from the files of the checkout."""

import shutil
from pathlib import Path

from support.measurements import run_script

import write_claims


def test_the_page_is_what_the_command_writes(tmp_path: Path) -> None:
    page = write_claims.ROOT / "docs/claims.md"
    again = shutil.copy(page, tmp_path / "claims.md")
    run_script(write_claims, "--page", again)
    assert again.read_text() == page.read_text()
    assert "4.144 bits of each quantized weight held, of which 0.017" in page.read_text()
