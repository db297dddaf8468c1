"""Runs in the export environment: only there are `onnx` and the builders."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def in_export_environment(*command: object, given: str = "", seed: str = "") -> subprocess.CompletedProcess[str]:
    """Run by the environment's Python, which is made if it isn't there yet, as the first export does."""
    maker = ["scripts/make_environment.py", "--lock", "envs/export/requirements.txt", "--unless", "optimum-onnx"]
    # A fork server can't choose another seed.
    seeded = {"PYTHONHASHSEED": seed} if seed else {}
    return subprocess.run(
        [os.environ.get("PYTHON_EXEC", sys.executable), *maker, "--", *map(str, command)],
        cwd=ROOT,
        input=given,
        env=os.environ | {"PYTHONPATH": str(ROOT / "scripts")} | seeded,
        capture_output=True,
        text=True,
        check=False,
    )
