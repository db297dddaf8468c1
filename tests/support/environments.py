"""Environments that one module of tests needs."""

import os
import subprocess
import sys
from pathlib import Path

from make_environment import pip_settings


def installed(directory: Path, requirements: str) -> Path:
    """The Python of an environment with these packages; bytecode is compiled of what is imported, not of all."""
    uv, python = Path(sys.executable).with_name("uv"), directory / "environment/bin/python"
    (directory / "requirements.txt").write_text(requirements)
    subprocess.run([uv, "venv", "--quiet", directory / "environment"], check=True)
    command = [uv, "pip", "install", "--quiet", "--python", python, "--requirement", directory / "requirements.txt"]
    subprocess.run(command, check=True, env={**os.environ, **pip_settings(sys.executable)})
    return python
