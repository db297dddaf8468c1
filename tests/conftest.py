"""What every test shares: settings of hypothesis, and where measured figures go."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from snaketune.core.files import write_json

# A busy machine is no defect of the code under test.
settings.register_profile(
    "unit", deadline=None, database=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("unit")


def pytest_configure(config: pytest.Config) -> None:
    """Hide GPUs from all but tests/gpu: other tests compare bytes, and put inputs on the CPU."""
    if not any("tests/gpu" in argument for argument in config.args):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record", type=Path, help="the folder to write measured figures to: `make soak`, `make gpu`")


@pytest.fixture(scope="session")
def record(request: pytest.FixtureRequest) -> Callable[[str, Any], None]:
    """Write figures to a file of the folder that was asked for, or nowhere."""
    folder: Path | None = request.config.getoption("record")
    return lambda name, figures: write_json(folder / name, figures) if folder else None


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """On tensors as small as in tests, a second thread of torch only waits."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
