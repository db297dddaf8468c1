"""Each fault of a cluster without accounting ten times."""

from pathlib import Path

import pytest
import test_unaccounted
from loopback import Cluster
from runs import Runs
from soaking import TIMES, Seconds

pytestmark = [pytest.mark.long, pytest.mark.soak]


@pytest.mark.parametrize("time_of", range(TIMES))
def test_squeue(time_of: int, unaccounted: Cluster, bare: Runs, seconds: Seconds) -> None:
    with seconds.of(test_unaccounted.test_squeue_tells_how_jobs_end.__name__):
        test_unaccounted.test_squeue_tells_how_jobs_end(unaccounted, bare)


@pytest.mark.parametrize("time_of", range(TIMES))
def test_full_disk(time_of: int, unaccounted: Cluster, bare: Runs, small_state: Path, seconds: Seconds) -> None:
    with seconds.of(test_unaccounted.test_a_full_disk_of_the_controller.__name__):
        test_unaccounted.test_a_full_disk_of_the_controller(unaccounted, bare, small_state)
