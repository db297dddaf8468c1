"""Each fault ten times, on one cluster: whether it is always borne, and how long that takes."""

import os
import platform
import time
from collections.abc import Callable, Iterator

import pytest
import test_faults
from loopback import Cluster, output
from runs import Runs
from workspace import REPOSITORY

from snaketune.files import write_json

pytestmark = [pytest.mark.long, pytest.mark.soak]

FAULTS = [
    test_faults.test_too_little_memory_is_tried_again_with_more,
    test_faults.test_a_dead_node_is_left_for_another,
    test_faults.test_a_cancelled_job_is_tried_again,
    test_faults.test_ctrl_c_cancels_every_job_and_leaves_no_lock,
    test_faults.test_what_a_killed_run_left_is_cancelled_before_the_next_submits,
    test_faults.test_a_second_run_beside_is_refused,
]
TIMES = 10


@pytest.fixture(scope="module")
def seconds() -> Iterator[dict[str, list[float]]]:
    """Of each time that a fault was borne; a failed one has none."""
    found: dict[str, list[float]] = {fault.__name__.removeprefix("test_"): [] for fault in FAULTS}
    yield found
    machine = {"slurm": output("sbatch", "--version").strip(), "python": platform.python_version()}
    figures = {**machine, "cores": os.cpu_count(), "times": TIMES, "seconds": found}
    write_json(REPOSITORY / "benchmarks/soak-cluster.json", figures)


@pytest.mark.parametrize("time_of", range(TIMES))
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__.removeprefix("test_"))
def test_again(
    fault: Callable[[Cluster, Runs], None],
    time_of: int,
    cluster: Cluster,
    runs: Runs,
    seconds: dict[str, list[float]],
) -> None:
    started = time.monotonic()
    fault(cluster, runs)
    seconds[fault.__name__.removeprefix("test_")].append(round(time.monotonic() - started, 1))
