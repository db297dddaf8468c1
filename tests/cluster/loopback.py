"""A SLURM cluster of two nodes on this one machine: every daemon real, every port on 127.0.0.1."""

import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from configured import NAME, NODES, slurm_conf, slurmdbd_conf

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")
ACCOUNTING = ("slurmdbd", "mariadbd", "sacctmgr")
CONFIGURED = ("slurm.conf", "gres.conf")
# The plugin's second Snakemake finds no SLURM_CONF in its environment, only what lies here.
SYSTEM = Path("/etc/slurm")
ACCOUNT = "tuners"


class NoCluster(Exception):
    """Why none can be started here."""


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def until(done: Callable[[], bool], what: str, seconds: float = 120) -> None:
    """Wait, asking five times a second.

    Raises:
        TimeoutError: it wasn't so in time.
    """
    ends = time.monotonic() + seconds
    while not done():
        if time.monotonic() > ends:
            raise TimeoutError(f"waited {seconds} s for {what}")
        time.sleep(0.2)


@contextmanager
def small_disk(path: Path, size: str) -> Iterator[Path]:
    """A disk of its own in place of a folder."""
    path.mkdir(parents=True, exist_ok=True)
    if not succeeds("mount", "-t", "tmpfs", "-o", f"size={size}", "none", path):
        pytest.skip("mount isn't allowed here")
    try:
        yield path
    finally:
        output("umount", "--lazy", path)


@contextmanager
def full(path: Path) -> Iterator[None]:
    """Leave no byte of a disk free, though daemons delete what they wrote."""
    ended = threading.Event()

    def fill() -> None:
        with (path / "filler").open("ab", buffering=0) as file:
            while not ended.wait(0.01):
                with suppress(OSError):
                    while True:
                        file.write(b"\0" * 4096)

    filling = threading.Thread(target=fill)
    filling.start()
    time.sleep(0.5)
    try:
        yield
    finally:
        ended.set()
        filling.join()
        (path / "filler").unlink()


def succeeds(*command: object) -> bool:
    return subprocess.run([str(word) for word in command], capture_output=True, check=False).returncode == 0


def output(*command: object) -> str:
    words = [str(word) for word in command]
    return subprocess.run(words, capture_output=True, text=True, check=True, timeout=600).stdout


class Cluster:
    """Configuration, keys, spool, database, logs and pid files lie in ``home``; nothing else is touched but two links."""

    def __init__(self, home: Path, accounting: bool = True, state: Path | None = None):
        self.home, self.accounting, self.state = home, accounting, state or home / "state"
        self.munge, self.database = home / "munge.socket", home / "database.socket"
        self.host = socket.gethostname().split(".")[0]
        self.ports = dict(zip(("slurmctld", "slurmdbd", "mariadbd", *NODES), free_ports(5), strict=True))

    def start(self) -> None:
        """Bring up every daemon and wait until both nodes take jobs.

        Raises:
            NoCluster: a program or root is missing, or another cluster is configured here.
        """
        missing = [name for name in PROGRAMS + ACCOUNTING * self.accounting if not shutil.which(name)]
        if missing:
            raise NoCluster(f"{', '.join(missing)} not installed: the Debian packages are named in .ci/run")
        if os.geteuid() != 0:
            raise NoCluster("slurmd starts jobs as root only")
        self._end_a_forgotten_one()
        for name in ("log", "run"):
            (self.home / name).mkdir(parents=True)
        (self.home / "run/owner.pid").write_text(str(os.getpid()))
        self.state.mkdir(exist_ok=True)
        self._configure()
        self._start_munge()
        if self.accounting:
            self._start_accounting()
        output("slurmctld")
        until(lambda: succeeds("scontrol", "ping"), "slurmctld")
        for node in NODES:
            self.start_node(node)
        until(lambda: self.states() == dict.fromkeys(NODES, "idle"), "both nodes to be idle")

    def _end_a_forgotten_one(self) -> None:
        """A killed pytest left its cluster up: its pid files say what to end.

        Raises:
            NoCluster: the cluster that is configured here isn't one of these tests, or is in use.
        """
        for name in CONFIGURED:
            path = SYSTEM / name
            if path.is_symlink() and (owner := path.readlink().parent / "run/owner.pid").exists():
                if psutil.pid_exists(int(owner.read_text())):
                    raise NoCluster(f"process {owner.read_text()} has a cluster of its own at {owner.parent.parent}")
                forgotten = Cluster(owner.parent.parent)
                forgotten.stop()
                shutil.rmtree(forgotten.home, ignore_errors=True)
            elif path.exists():
                raise NoCluster(f"{path} belongs to another cluster")

    def _start_munge(self) -> None:
        key = self.home / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(1024))
        places = {"key-file": key, "socket": self.munge, "pid-file": self.home / "run/munged.pid"}
        places |= {"log-file": self.home / "log/munged.log", "seed-file": self.home / "munge.seed"}
        output("munged", "--force", *(f"--{name}={path}" for name, path in places.items()))
        until(lambda: succeeds("munge", "-S", self.munge, "-n"), "munged")

    def _start_accounting(self) -> None:
        data, log = self.home / "database", (self.home / "log/mariadbd.log").open("ab")
        options = ["--no-defaults", "--user=root", f"--datadir={data}"]
        output("mariadb-install-db", *options, "--auth-root-authentication-method=socket", "--skip-test-db")
        options += [f"--socket={self.database}", f"--pid-file={self.home}/run/mariadbd.own", "--skip-log-bin"]
        options += ["--bind-address=127.0.0.1", f"--port={self.ports['mariadbd']}"]
        options += ["--innodb-buffer-pool-size=32M", "--innodb-lock-wait-timeout=900"]
        serving = subprocess.Popen(["mariadbd", *options], stdout=log, stderr=log, start_new_session=True)
        (self.home / "run/mariadbd.pid").write_text(str(serving.pid))
        client = ["mariadb", "--no-defaults", "-S", self.database, "-e"]
        until(lambda: succeeds(*client, "select 1"), "mariadbd")
        output(*client, "create database slurm; create user slurm@'127.0.0.1' identified by 'slurm'")
        output(*client, "grant all on slurm.* to slurm@'127.0.0.1'")
        output("slurmdbd")
        until(lambda: succeeds("sacctmgr", "-n", "list", "cluster"), "slurmdbd")
        for what in (f"cluster {NAME}", f"account {ACCOUNT} cluster={NAME}", f"user root account={ACCOUNT}"):
            output("sacctmgr", "-i", "add", *what.split())

    def _configure(self) -> None:
        self._write("slurm.conf", slurm_conf(self))
        self._write("gres.conf", f"NodeName={NODES[1]} Name=gpu File=/dev/zero,/dev/full\n")
        self._write("slurmdbd.conf", slurmdbd_conf(self))
        SYSTEM.mkdir(exist_ok=True)
        for name in (*CONFIGURED, *["slurmdbd.conf"] * self.accounting):
            (SYSTEM / name).unlink(missing_ok=True)
            (SYSTEM / name).symlink_to(self.home / name)

    def _write(self, name: str, text: str) -> None:
        (self.home / name).write_text(text)
        (self.home / name).chmod(0o600)

    def start_node(self, node: str) -> None:
        output("slurmd", "-N", node)

    def kill_node(self, node: str) -> None:
        """As a power cut does: slurmd and all that its jobs started end without a word."""
        kill([self.pid(f"slurmd-{node}"), *self.processes(node)])

    def revive(self, node: str) -> None:
        self.start_node(node)
        until(lambda: self.states()[node] == "idle", f"{node} to be back")

    def states(self) -> dict[str, str]:
        return dict(line.split() for line in output("sinfo", "-h", "-N", "-o", "%N %T").splitlines())

    def jobs(self, *options: str) -> list[dict[str, str]]:
        """What lives in the queue: id, name, state, node and comment of each job."""
        keys = ("id", "name", "state", "node", "comment")
        lines = output("squeue", "-h", "-o", "%A|%j|%T|%N|%k", *options).splitlines()
        return [dict(zip(keys, line.split("|"), strict=True)) for line in lines]

    def pid(self, daemon: str) -> int:
        return int((self.home / f"run/{daemon}.pid").read_text())

    def _started(self) -> Iterator[tuple[int, int | None, dict[str, str]]]:
        """Each process that jobs started and that still runs: its number, its slurmstepd's, its environment."""
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if (told := process.environ()).get("SLURM_CLUSTER_NAME") == NAME:
                    above = process.parent()
                    yield process.pid, above.pid if above and above.name().startswith("slurmstepd") else None, told

    def task(self, job: str) -> int:
        """The first process of the step that the plugin's srun starts in a job; proctrack/cgroup signals it alone."""
        for pid, above, told in self._started():
            if above and told.get("SLURM_JOB_ID") == job and told.get("SLURM_STEP_ID", "").isdigit():
                return pid
        raise LookupError(f"job {job} has no step")

    def processes(self, node: str | None = None) -> list[int]:
        """Everything that the jobs of one node, or of both, started and that still runs, what watches over it first."""
        found = [(pid, above) for pid, above, told in self._started() if node in (None, told.get("SLURMD_NODENAME"))]
        return [*(above for _, above in found if above), *(pid for pid, _ in found)]

    def stop(self) -> None:
        """End the jobs, then the daemons by their pid files, then what outlived its job."""
        with suppress(subprocess.SubprocessError, TimeoutError):
            subprocess.run(["scancel", "--user", "root"], timeout=20, check=False, capture_output=True)
            until(lambda: not self.jobs(), "the jobs to end", seconds=30)
        order = [*(f"slurmd-{node}" for node in NODES), "slurmctld", "slurmdbd", "mariadbd", "munged"]
        for daemon in order:
            with suppress(FileNotFoundError, psutil.NoSuchProcess):
                process = psutil.Process(self.pid(daemon))
                # After a restart of the machine the number may be another's.
                if process.name().startswith(daemon.split("-")[0]):
                    end(process)
        kill(self.processes())
        for name in (*CONFIGURED, "slurmdbd.conf"):
            if (SYSTEM / name).is_symlink() and (SYSTEM / name).readlink() == self.home / name:
                (SYSTEM / name).unlink()


def kill(pids: list[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def end(process: psutil.Process) -> None:
    process.terminate()
    try:
        process.wait(timeout=30)
    except psutil.TimeoutExpired:
        process.kill()
