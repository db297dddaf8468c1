"""Each fault ten times, on one cluster: whether it is always borne, and how long that takes."""

from collections.abc import Callable
from pathlib import Path

import pytest
import test_faults
import test_results
from loopback import Cluster
from runs import Runs
from soaking import TIMES, Seconds
from support.workspace import Workspace
from trainings import LORA, to_be_cut_off, went_on

pytestmark = [pytest.mark.long, pytest.mark.soak]

FAULTS = [
    test_faults.test_too_little_memory_is_tried_again_with_more,
    test_faults.test_a_dead_node_is_left_for_another,
    test_faults.test_a_node_with_a_full_disk_is_left_for_another,
    test_faults.test_a_cancelled_job_is_tried_again,
    test_faults.test_ctrl_c_cancels_every_job_and_leaves_no_lock,
    test_faults.test_what_a_killed_run_left_is_cancelled_before_the_next_submits,
    test_faults.test_a_second_run_beside_is_refused,
]


@pytest.mark.parametrize("time_of", range(TIMES))
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__.removeprefix("test_"))
def test_again(
    fault: Callable[..., None],
    time_of: int,
    cluster: Cluster,
    runs: Runs,
    seconds: Seconds,
    request: pytest.FixtureRequest,
) -> None:
    spool = {"full_spool": request.getfixturevalue("full_spool")} if "full_disk" in fault.__name__ else {}
    with seconds.of(fault.__name__):
        fault(cluster, runs, **spool)


@pytest.mark.parametrize("time_of", range(TIMES))
def test_a_node_killed_in_training(
    time_of: int, cluster: Cluster, laptop: Workspace, tmp_path: Path, seconds: Seconds
) -> None:
    fault = test_results.test_a_training_goes_on_on_another_node
    with seconds.of(fault.__name__):
        fault(cluster, laptop, tmp_path)


def test_time_limits(cluster: Cluster, laptop: Workspace, tmp_path: Path, seconds: Seconds) -> None:
    """At once, as each takes minutes of waiting; as many as the nodes have cores for."""
    started = {path: to_be_cut_off(path, laptop) for path in (tmp_path / str(number) for number in range(TIMES))}
    with seconds.of("test_time_limits_at_once"):
        for runs in started.values():
            runs.start(f"{LORA}/manifest.json")
        for path, runs in started.items():
            assert runs.running[0].wait(timeout=3000) == 0, runs.printed()
            went_on(path, runs.printed(), laptop)
