"""Scripts that run in this process: it takes seconds to start one."""

import contextlib
import io
import runpy
import sys
import tempfile
from pathlib import Path

SCRIPTS = Path(__file__).parents[2] / "scripts"


def run(script: str, *argv: str) -> tuple[int, str]:
    """Exit code and standard error of a script."""
    sys.argv = [script, *argv]
    # quantize_onnx.py leaves it at a directory that is gone.
    tempfile.tempdir = None
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            runpy.run_path(str(SCRIPTS / script), run_name="__main__")
    except SystemExit as end:
        return int(end.code or 0), said.getvalue()
    return 0, said.getvalue()
