"""What a killed pytest left running is ended by the next: tests never meet another's daemons."""

import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest

PROGRAM = """
import sys, time
from pathlib import Path
from loopback import Cluster
Cluster(Path(sys.argv[1]), accounting=False).start()
print("up", flush=True)
time.sleep(600)
"""


def test_a_cluster_of_a_killed_pytest_is_ended(request: pytest.FixtureRequest) -> None:
    home = Path(tempfile.mkdtemp(prefix="slurm-", dir="/var/tmp"))
    words = [sys.executable, "-c", PROGRAM, str(home)]
    with subprocess.Popen(words, cwd=Path(__file__).parent, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout
        up = first.stdout.readline()
        daemons = [int(path.read_text()) for path in home.glob("run/*.pid") if path.name != "owner.pid"]
        first.kill()
    # Skipped here where no cluster can be started at all.
    request.getfixturevalue("cluster")
    assert up == "up\n"
    assert len(daemons) == 4
    assert not any(psutil.pid_exists(pid) for pid in daemons)
    assert not home.exists()
