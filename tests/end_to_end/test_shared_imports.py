"""Jobs of a local run are forks of a process that has imported the libraries, while that run lives and wants them to be."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.workspace import REPOSITORY, Workspace

SNAKEFILE = f"""
import os, sys

os.environ.pop("SNAKETUNE_FORK_SERVER", None)
sys.path.insert(0, "{REPOSITORY}/scripts")
from snaketune.core.files import prefer_programs_of
from snaketune.dag import shared_imports

prefer_programs_of(os.path.dirname(sys.executable))
shared_imports.SCRIPTS = {{"script.py": True, "light.py": False}}
shared_imports.MODULES = {{"": ["xml.dom.minidom", *config["modules"]], "other": ["xml.sax"]}}
MAKE = "{REPOSITORY}/scripts/make_environment.py --lock other/requirements.txt --unless pytest --"


onstart:
    shared_imports.share_imports(workflow, config["share"], set())


rule job:
    input: lambda wildcards: [f"{{int(wildcards.number) - 1}}.json"][: int(wildcards.number) > 1]
    output: "{{number}}.json"
    benchmark: "{{number}}.tsv"
    params: lambda wildcards: {{"1": "light.py", "4": MAKE + " script.py"}}.get(wildcards.number, "script.py")
    shell: "python {{params}} {{output}}"
"""
SCRIPT = """
import sys
held = [name for name in ("xml.dom.minidom", "xml.sax") if name in sys.modules]
import json, os, pathlib, time, psutil, helper
# Of another size, or Python takes the compiled one of the same second.
pathlib.Path("helper.py").write_text(f"VALUE, SECONDS = {helper.VALUE + 1}, {helper.SECONDS}" + " " * helper.VALUE)
above = psutil.Process().parents()
seen = {"held": held, "value": helper.VALUE, "processes": [os.getpid(), above[0].pid, above[1].pid], "path": os.environ["PATH"]}
memory = b"x" * (200 << 20)
time.sleep(helper.SECONDS)
pathlib.Path(sys.argv[1]).write_text(json.dumps(seen))
"""


def workspace(directory: Path, seconds: float, **config: Any) -> Workspace:
    (directory / "other").mkdir()
    helper, config = f"VALUE, SECONDS = 1, {seconds}", {"share": True, "modules": [], **config}
    texts = {"Snakefile": SNAKEFILE, "script.py": SCRIPT, "light.py": SCRIPT, "helper.py": helper}
    for name, text in {**texts, "other/requirements.txt": "", "config.json": json.dumps(config)}.items():
        (directory / name).write_text(text)
    return Workspace(directory, "config.json")


def made(directory: Path) -> list[dict[str, Any]]:
    return [json.loads((directory / f"{number}.json").read_text()) for number in (1, 2, 3, 4)]


def test_jobs_share_what_the_first_worth_it_imports_and_import_the_project_anew(tmp_path: Path) -> None:
    workspace(tmp_path, 0.8).run("4.json")
    light, first, second, other = made(tmp_path)
    # Nothing ran yet for the light one; each environment has a server of its own.
    assert [one["held"] for one in (light, first, second, other)] == [
        [],
        ["xml.dom.minidom"],
        ["xml.dom.minidom"],
        ["xml.sax"],
    ]
    assert [one["value"] for one in (light, first, second, other)] == [1, 2, 3, 4]
    servers = [one["processes"][2] for one in (first, second, other)]
    assert servers[0] == servers[1] != servers[2]
    for number in (1, 2, 3, 4):
        columns, values = ((tmp_path / f"{number}.tsv").read_text().splitlines()[n].split("\t") for n in (0, 1))
        assert 200 < float(dict(zip(columns, values, strict=True))["max_rss"]) < 400
    _, alive = psutil.wait_procs([psutil.Process(n) for n in servers if psutil.pid_exists(n)], timeout=5)
    assert not alive
    assert not Path(first["path"].split(os.pathsep)[0]).exists()


@pytest.mark.parametrize(
    ("config", "arguments"),
    [({"share": False}, []), ({"modules": ["no_such_module"]}, []), ({}, ["--resources", "mem_mb=4000"])],
    ids=["switched off", "a library is missing", "memory is counted"],
)
def test_jobs_import_by_themselves(config: dict[str, Any], arguments: list[str], tmp_path: Path) -> None:
    said = workspace(tmp_path, 0, **config).run("3.json", *arguments)
    third = json.loads((tmp_path / "3.json").read_text())
    assert not third["held"]
    # Once, for all jobs that would try again.
    assert said.count("ModuleNotFoundError: No module named 'no_such_module'") == ("modules" in config)
    # A fork of pytest ends without.
    if (forks := Path(third["path"].split(os.pathsep)[0]).parent).name.startswith("snaketune-"):
        shutil.rmtree(forks)


def test_forks_and_their_server_end_with_a_killed_workflow(tmp_path: Path) -> None:
    (tmp_path / "1.json").touch()
    held = workspace(tmp_path, 60)
    shown = SCRIPT.replace("memory =", "pathlib.Path('seen').write_text(json.dumps(seen)); memory =")
    (tmp_path / "script.py").write_text(shown)
    snakemake = held.started(tmp_path / "log", "--cores", "1", "2.json")
    while not (seen := tmp_path / "seen").is_file() or not seen.read_text():
        assert snakemake.status() != psutil.STATUS_ZOMBIE, (tmp_path / "log").read_text()
        os.sched_yield()
    found = json.loads(seen.read_text())
    processes = [psutil.Process(number) for number in found["processes"]]
    snakemake.kill()
    snakemake.wait()
    assert not psutil.wait_procs(processes, timeout=5)[1]
    assert not Path(found["path"].split(os.pathsep)[0]).exists()
