"""One result at any width: losses and weights of DDP, ZeRO-2 and ZeRO-3 at 1 and 4 ranks, of adapters at 1 and 2."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from support.training_runs import REPOSITORY, command, curve, recipe_of, write_inputs

pytestmark = pytest.mark.long

ENGINES = {
    "ddp": ("full", {}),
    "zero2": ("zero2", {}),
    "zero3": ("zero3", {}),
    "lora-ddp": ("lora", {}),
    "lora-zero3": ("lora-zero3", {}),
}
# What divides all weights among four ranks divides an adapter's too; test_run.py has all weights at two ranks.
RUNS = [(name, ranks) for name in ENGINES for ranks in (1, 2 if name.startswith("lora") else 4)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("width")
    write_inputs(directory)
    runs = []
    for name, ranks in RUNS:
        technique, changes = ENGINES[name]
        recipe = recipe_of(technique, world_size=ranks, **changes)
        runs.append((ranks, command(directory, directory / f"{name}-{ranks}", recipe)))
    (directory / "runs.json").write_text(json.dumps(runs))
    ran = subprocess.run(
        [sys.executable, str(REPOSITORY / "tests/support/forked_ranks.py"), str(directory / "runs.json")],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY / "scripts")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, (ran.stdout + ran.stderr)[-8000:]
    return directory


@pytest.mark.parametrize(("name", "ranks"), RUNS[1:], ids=str)
def test_a_width_and_an_engine_change_no_loss_and_no_weight(name: str, ranks: int, trained: Path) -> None:
    reference = trained / ("lora-ddp-1" if name.startswith("lora") else "ddp-1")
    one, other = curve(reference), curve(trained / f"{name}-{ranks}")
    assert len(one) == len(other) == 8
    for key in ("loss", "learning_rate", "tokens"):
        assert [e[key] for e in other] == pytest.approx([e[key] for e in one], abs=1e-4), key
    validation = [e["validation_loss"] for e in one if "validation_loss" in e]
    assert len(validation) == 2
    assert [e["validation_loss"] for e in other if "validation_loss" in e] == pytest.approx(validation, abs=1e-4)
    assert one[0]["loss"] - one[-1]["loss"] > 0.1, "nothing was learned, so nothing was compared"
    expected, found = (
        load_file(next((path / "run").glob("*/*.safetensors"))) for path in (reference, trained / f"{name}-{ranks}")
    )
    assert expected.keys() == found.keys()
    for tensor in expected:
        np.testing.assert_allclose(found[tensor], expected[tensor], atol=1e-4, err_msg=tensor)
