"""Resolve envs/*/requirements.in to exact versions, and write each conda YAML from its lock."""

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

from make_environment import pip_settings

PYTHON = "3.11"
# Each lock file, and the one whose versions it must keep.
LOCKS = {"train": None, "export": None, "publish": None, "workflow": "train", "track": "workflow", "dev": "track"}
CONDA = ("train", "export", "publish", "workflow")
# A torch wheel pins these itself, differently for CPU and CUDA.
LEFT_TO_TORCH = re.compile(r"^(nvidia|cuda|triton)[-a-z0-9]*==")


def normalised(lines: list[str]) -> list[str]:
    """Return pinned requirements, with one torch for every build and without what its wheel pins itself."""
    pins = [line for line in lines if "==" in line and not line.lstrip().startswith("#")]
    return sorted(
        {re.sub(r"^(torch==[^;+\s]+).*", r"\1", one).rstrip() for one in pins if not LEFT_TO_TORCH.match(one)}
    )


def compiled(source: Path, constraint: Path | None, upgrade: bool) -> list[str]:
    """Return the lines of a universal lock file, valid for every platform and Python from 3.11 on."""
    target, uv = source.with_suffix(".txt"), Path(sys.executable).with_name("uv")
    command: list[str | Path] = [uv, "pip", "compile", "--quiet", "--universal", "--no-header", "--no-annotate", source]
    command += ["--python-version", PYTHON]
    for known in (constraint, target if target.exists() and not upgrade else None):
        command += ["--constraint", known] if known else []
    environment = os.environ | pip_settings(sys.executable)
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout.splitlines()


def conda(name: str, pins: list[str]) -> str:
    """Return the conda environment of a lock file as YAML."""
    environment = {
        "name": f"snaketune-{name}",
        "channels": ["conda-forge", "nodefaults"],
        "dependencies": [f"python={PYTHON}", "pip", "gxx", {"pip": pins}],
    }
    return f"# Written by `make lock` from envs/{name}/requirements.txt.\n" + yaml.safe_dump(
        environment, sort_keys=False, width=1000
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--upgrade", action="store_true", help="replace the locked versions by the newest ones")
    arguments = parser.parse_args()
    for name, below in LOCKS.items():
        directory = Path("envs") / name
        constraint = Path(f"envs/{below}/requirements.txt") if below else None
        pins = normalised(compiled(directory / "requirements.in", constraint, arguments.upgrade))
        (directory / "requirements.txt").write_text("# Written by `make lock`.\n" + "\n".join(pins) + "\n")
        if name in CONDA:
            (directory / "environment.yaml").write_text(conda(name, pins))
        print(f"envs/{name}: {len(pins)} packages")


if __name__ == "__main__":
    main()
