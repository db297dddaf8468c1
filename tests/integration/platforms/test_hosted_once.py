"""Whatever befalls a submission, a hosted service gets one job: by the official SDKs against loopback services.

A loopback proves what an SDK sends and how its answers are taken, not that a real service agrees.
"""

import os
import signal

import pytest
from support.services.hosting import Hosted, at_once, message
from support.services.openai_service import Failure, Fault, storm

from snaketune.core.files import read_json


@pytest.fixture(params=["openai", "azure"])
def hosted(request: pytest.FixtureRequest) -> Hosted:
    found: Hosted = request.getfixturevalue(request.param)
    return found


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("route", ["look", "create"])
def test_a_storm_that_ends_is_waited_out(status: int, route: str, hosted: Hosted) -> None:
    hosted.service.faults.append(storm(hosted.routes[route], status, 5))
    ran = hosted.submit()
    assert ran.code == 0, ran.output
    assert len(hosted.service.jobs) == 1


@pytest.mark.parametrize("route", ["look", "create"])
def test_a_storm_without_end_is_told_and_the_next_life_goes_on(route: str, hosted: Hosted) -> None:
    hosted.service.faults.append(storm(hosted.routes[route], 503, 1000))
    assert "is overloaded and stayed so" in message(hosted.submit())
    assert not (hosted.folder / "job.json").exists()
    hosted.service.faults.clear()
    assert hosted.submit().code == 0
    assert len(hosted.service.jobs) == 1


def test_a_retry_after_of_a_wrong_clock_is_not_waited_for(hosted: Hosted) -> None:
    busy = Failure(503, "busy", Retry_After="Wed, 21 Oct 2099 07:28:00 GMT")
    hosted.service.faults.append(Fault(hosted.routes["create"], 1, busy))
    assert hosted.submit().code == 0


@pytest.mark.parametrize("times", [1, 3])
def test_an_answer_lost_after_the_job_was_created_makes_no_second(times: int, hosted: Hosted) -> None:
    hosted.service.faults.append(Fault(hosted.routes["create"], times))
    assert hosted.submit().code == 0
    assert [read_json(hosted.folder / "job.json")["id"]] == [*hosted.service.jobs]


def test_killed_after_the_job_was_created_the_next_life_finds_it(hosted: Hosted) -> None:
    kill = Fault(hosted.routes["create"], then=lambda: os.kill(hosted.worker.pids[-1], signal.SIGKILL))
    hosted.service.faults.append(kill)
    assert hosted.submit().code is None
    assert not (hosted.folder / "job.json").exists()
    assert len(hosted.service.jobs) == 1
    assert hosted.submit().code == 0
    assert [read_json(hosted.folder / "job.json")["id"]] == [*hosted.service.jobs]


def test_two_submits_at_once_keep_one_job(hosted: Hosted) -> None:
    """In folders of their own, as on two machines: no lock of ours holds them apart."""
    folders = [hosted.folder / name for name in ("one", "other")]
    for folder in folders:
        folder.mkdir()
    ran = at_once(*(lambda folder=folder: hosted.submit(directory=folder) for folder in folders))
    assert [one.code for one in ran] == [0, 0], ran
    assert {read_json(folder / "job.json")["id"] for folder in folders} == {*hosted.service.alive}
    assert len(hosted.service.alive) == 1


@pytest.mark.parametrize("ending", ["failed", "cancelled"])
def test_a_job_that_ends_badly_is_told_and_never_submitted_again(ending: str, hosted: Hosted) -> None:
    hosted.service.end(ending)
    hosted.submit()
    told = message(hosted.wait())
    assert f"as {ending}" in told
    assert "raise `attempt`" in told
    if ending == "failed":
        assert "violates the usage policies" in told
    assert not (hosted.folder / "finished.json").exists()
    assert hosted.submit().code == 0
    assert len(hosted.service.jobs) == 1
