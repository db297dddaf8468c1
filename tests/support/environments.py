"""Environments by their locks, and those that one module of tests needs."""

import os
import subprocess
import sys
from pathlib import Path

from make_environment import pip_settings

ROOT = Path(__file__).parents[2]


def python_of(name: str) -> str:
    """The Python of an environment of envs/, made once and shared, as the rules make it."""
    make = [sys.executable, "scripts/make_environment.py", "--lock", f"envs/{name}/requirements.txt", "--"]
    told = subprocess.check_output([*make, "-c", "import sys; print(sys.executable)"], cwd=ROOT, text=True)
    return told.split()[-1]


def installed(directory: Path, requirements: str) -> Path:
    """The Python of an environment with these packages; bytecode is compiled of what is imported, not of all."""
    uv, python = Path(sys.executable).with_name("uv"), directory / "environment/bin/python"
    (directory / "requirements.txt").write_text(requirements)
    subprocess.run([uv, "venv", "--quiet", directory / "environment"], check=True)
    command = [uv, "pip", "install", "--quiet", "--python", python, "--requirement", directory / "requirements.txt"]
    subprocess.run(command, check=True, env={**os.environ, **pip_settings(sys.executable)})
    return python
