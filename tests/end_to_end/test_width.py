"""One result at any width: losses and weights of DDP, ZeRO-2 and ZeRO-3 at 1 and 4 ranks, of adapters at 1 and 2."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from support.forks import QUIET, TRAIN, server
from support.training_runs import REPOSITORY, command, curve, recipe_of, write_inputs

pytestmark = pytest.mark.long

# What divides all weights among four ranks divides an adapter's too; test_run.py has all weights at two ranks.
WIDTHS = {"full": 4, "zero2": 4, "zero3": 4, "lora": 2, "lora-zero3": 2}
RUNS = [(name, ranks) for name, widest in WIDTHS.items() for ranks in (1, widest)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("width")
    write_inputs(directory)
    with (
        tempfile.TemporaryDirectory(prefix="forks-") as forks,
        server(forks, sys.executable, [*TRAIN, "deepspeed", *QUIET]),
    ):
        environment = {**os.environ, "SNAKETUNE_FORK_SERVER": forks, "PYTHON_EXEC": f"{forks}/bin/python"}
        for name, ranks in RUNS:
            training = command(directory, directory / f"{name}-{ranks}", recipe_of(name, world_size=ranks))
            words = [environment["PYTHON_EXEC"], "scripts/launch.py", "--ranks", str(ranks), *training]
            ran = subprocess.run(words, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
            assert ran.returncode == 0, (ran.stdout + ran.stderr)[-8000:]
    return directory


@pytest.mark.parametrize(("name", "ranks"), RUNS[1:], ids=str)
def test_a_width_and_an_engine_change_no_loss_and_no_weight(name: str, ranks: int, trained: Path) -> None:
    reference = trained / ("lora-1" if name.startswith("lora") else "full-1")
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
