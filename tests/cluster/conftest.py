"""A cluster with accounts for all tests, one without for its module, and the runs that go through them."""

import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from configured import NODES
from loopback import Cluster, NoCluster, full, output, small_disk, succeeds, until
from runs import Runs
from support.experiments import small
from support.forks import serving
from support.workspace import REPOSITORY, Workspace
from trainings import EXPERIMENT

from snaketune.core.files import read_json, write_json


@contextmanager
def running(cluster: Cluster) -> Iterator[Cluster]:
    """Where none can be started the tests are skipped, unless SNAKETUNE_CLUSTER=required."""
    try:
        cluster.start()
    except NoCluster as reason:
        give_up = pytest.fail if os.environ.get("SNAKETUNE_CLUSTER") == "required" else pytest.skip
        give_up(f"no SLURM cluster: {reason}")
    except BaseException:
        cluster.stop()
        raise
    yield cluster
    cluster.stop()


@contextmanager
def short() -> Iterator[Path]:
    """A directory with a short path, as sockets need."""
    path = Path(tempfile.mkdtemp(prefix="slurm-", dir="/var/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    with short() as path:
        yield path


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    with short() as path, running(Cluster(path)) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def small_state(home: Path) -> Iterator[Path]:
    with small_disk(home / "small", "4m") as path:
        yield path


@pytest.fixture(scope="module")
def unaccounted(home: Path, small_state: Path) -> Iterator[Cluster]:
    """Without slurmdbd, its state on a small disk."""
    with running(Cluster(home, accounting=False, state=small_state / "state")) as cluster:
        yield cluster


@pytest.fixture
def full_spool(cluster: Cluster) -> Iterator[str]:
    """A node whose slurmd has no room for a job's script: the one that SLURM takes first."""
    with small_disk(cluster.home / f"spool-{NODES[0]}", "64k") as spool, full(spool):
        yield NODES[0]
    succeeds("scontrol", "update", f"nodename={NODES[0]}", "state=resume")
    until(lambda: cluster.states()[NODES[0]] == "idle", f"{NODES[0]} to be back")


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Runs]:
    runs = Runs.make(tmp_path)
    yield runs
    runs.end()


@pytest.fixture(scope="session")
def forks() -> Iterator[Path]:
    with serving() as directory:
        yield directory


@pytest.fixture(scope="session")
def laptop(forks: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = small(tmp_path_factory.mktemp("laptop"), EXPERIMENT)
    workspace.run()
    return workspace


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--times", type=int, default=1, help="how often each fault is done; several times are recorded")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if (times := metafunc.config.getoption("times", 1)) > 1:
        metafunc.fixturenames.append("time_of")
        metafunc.parametrize("time_of", range(times))


SECONDS: dict[str, list[float]] = {}


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" and report.passed:
        name = report.nodeid.split("::")[1].split("[")[0].removeprefix("test_")
        SECONDS.setdefault(name, []).append(round(report.duration, 1))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Record how long each fault took, of those that were survived; faults that weren't done keep their figures."""
    if (times := session.config.getoption("times", 1)) > 1:
        path = REPOSITORY / "benchmarks/soak-cluster.json"
        machine = {
            "slurm": output("slurmd", "-V").strip(),
            "python": platform.python_version(),
            "cores": os.cpu_count(),
        }
        write_json(path, {**machine, "times": times, "seconds": read_json(path)["seconds"] | SECONDS})
