"""A cluster for each module of tests, and the runs that go through it."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from configured import NODES
from loopback import Cluster, NoCluster, full, output, until
from runs import Runs
from soaking import Seconds
from support.experiments import small
from support.workspace import REPOSITORY, Workspace
from trainings import EXPERIMENT


def started(cluster: Cluster) -> Cluster:
    """Where none can be started the tests are skipped, unless SNAKETUNE_CLUSTER=required."""
    try:
        cluster.start()
    except NoCluster as reason:
        if os.environ.get("SNAKETUNE_CLUSTER") == "required":
            pytest.fail(f"no SLURM cluster: {reason}")
        pytest.skip(f"no SLURM cluster: {reason}")
    except BaseException:
        cluster.stop()
        raise
    return cluster


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """Short, as a socket's path must be; kept for a look where daemons said something went wrong."""
    path = Path(tempfile.mkdtemp(prefix="slurm-", dir="/var/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="module")
def cluster(home: Path) -> Iterator[Cluster]:
    cluster = started(Cluster(home))
    yield cluster
    cluster.stop()


@pytest.fixture(scope="module")
def small_state(home: Path) -> Iterator[Path]:
    """A disk of 4 MB."""
    path = home / "small"
    path.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", path], check=False).returncode:
        pytest.skip("mount isn't allowed here")
    yield path
    subprocess.run(["umount", "--lazy", path], check=True)


@pytest.fixture(scope="module")
def unaccounted(home: Path, small_state: Path) -> Iterator[Cluster]:
    """Without slurmdbd, its state on a small disk."""
    cluster = started(Cluster(home, accounting=False, state=small_state / "state"))
    yield cluster
    cluster.stop()


@pytest.fixture
def bare(runs: Runs) -> Runs:
    """Names no account."""
    runs.workspace.edit("profiles/slurm/config.yaml", "slurm_account: tuners", "# slurm_account: my-account")
    return runs


@pytest.fixture
def full_spool(cluster: Cluster) -> Iterator[str]:
    """A node whose slurmd has no room for a job's script: the one that SLURM takes first."""
    spool = cluster.home / f"spool-{NODES[0]}"
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", spool], check=False).returncode:
        pytest.skip("mount isn't allowed here")
    with full(spool):
        yield NODES[0]
    subprocess.run(["umount", "--lazy", spool], check=True)
    subprocess.run(["scontrol", "update", f"nodename={NODES[0]}", "state=resume"], check=False)
    until(lambda: cluster.states()[NODES[0]] == "idle", f"{NODES[0]} to be back")


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Runs]:
    runs = Runs.make(tmp_path)
    yield runs
    runs.end()


@pytest.fixture(scope="session")
def laptop(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = small(tmp_path_factory.mktemp("laptop"), EXPERIMENT)
    ran = workspace.snakemake("--cores", "2")
    assert ran.returncode == 0, ran.stderr
    return workspace


@pytest.fixture(scope="session")
def seconds() -> Iterator[Seconds]:
    found = Seconds()
    yield found
    found.write(REPOSITORY / "benchmarks/soak-cluster.json", output("slurmd", "-V").strip())
