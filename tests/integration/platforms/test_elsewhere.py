"""The Dockerfile and the profiles of clusters name what is there, and nothing secret."""

import fnmatch
import json
import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from snakemake.cli import get_argument_parser
from support.environments import installed
from support.experiments import MINE, OTHERS, TICKETS
from support.services.object_storage import storage
from support.workspace import Workspace

ROOT = Path(__file__).resolve().parents[3]
PROFILES = {"kubernetes": "s3", "azure-batch": "azure"}
PLUGIN = re.compile(r"snakemake-(?:executor|storage)-plugin-[a-z0-9-]+ \d+\.\d+\.\d+")


def instructions() -> list[tuple[str, str]]:
    """(instruction, rest) of each line of the Dockerfile, continued lines joined."""
    text = (ROOT / "Dockerfile").read_text()
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    joined = re.sub(r"\\\n\s*", " ", lines)
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in joined.splitlines() if line.strip())]


def sources() -> list[str]:
    return [path for name, rest in instructions() if name == "COPY" for path in shlex.split(rest)[:-1]]


def test_what_the_image_copies_is_there_and_sent_to_the_builder() -> None:
    ignored = (ROOT / ".dockerignore").read_text().split("\n")
    sent = [line[1:] for line in ignored if line.startswith("!")]
    for source in sources():
        assert (ROOT / source).is_file(), source
        assert any(fnmatch.fnmatch(source, pattern) for pattern in sent), source
    assert sorted(sent) == sorted(sources())


def test_the_job_of_one_pod_hangs_together() -> None:
    claim, job = yaml.safe_load_all((ROOT / "profiles/kubernetes/job.yaml").read_text())
    pod = job["spec"]["template"]["spec"]
    [container] = pod["containers"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes.keys()
    assert volumes["work"]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    profile = yaml.safe_load((ROOT / "profiles/kubernetes/config.yaml").read_text())
    assert container["image"] == profile["container-image"]
    assert str(pod["securityContext"]["runAsUser"]) == dict(instructions())["USER"]
    [mounted] = [mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == "work"]
    assert container["workingDir"].startswith(mounted)
    assert container["command"][0] == "snakemake"
    parsed = get_argument_parser().parse_args(container["command"][1:])
    assert parsed.nolock


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with Snakemake, the plugins that the profiles name, and what a plan imports."""
    texts = [(ROOT / f"profiles/{name}/config.yaml").read_text() for name in PROFILES]
    plugins = sorted({found.replace(" ", "==") for text in texts for found in PLUGIN.findall(text)})
    assert len(plugins) == 4
    locked = (ROOT / "envs/workflow/requirements.txt").read_text() + (ROOT / "envs/train/requirements.txt").read_text()
    wanted = "snakemake|pydantic|safetensors|numpy"
    pins = dict.fromkeys(re.findall(rf"^(?:{wanted})==.*$", locked, re.MULTILINE))
    return installed(tmp_path_factory.mktemp("plugins"), "\n".join([*pins, *plugins]) + "\n")


def planned(python: Path, workspace: Workspace, profile: str, **environment: str) -> dict[str, int]:
    """How many jobs of each rule a dry run lists."""
    command = [python, "-m", "snakemake", "-n", "--quiet", "rules", "--profile", f"profiles/{profile}"]
    command += ["--configfile", workspace.experiment]
    own = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    ran = subprocess.run(
        [*map(str, command)],
        cwd=workspace.path,
        env={**own, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    found = re.findall(r"^(\w+) +(\d+)$", ran.stdout + ran.stderr, re.MULTILINE)
    return {rule: int(count) for rule, count in found}


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_plans_the_jobs_that_a_laptop_does(python: Path, tmp_path: Path, name: str) -> None:
    workspace = Workspace.make(
        tmp_path / "workspace",
        {**OTHERS, "techniques": ["lora"], "precisions": []},
        {"config/scenarios/mine.yaml": MINE},
    )
    (workspace.path / "data/tickets.jsonl").write_text(TICKETS)
    place: dict[str, Any] = {
        "SNAKEMAKE_AZURE_BATCH_ACCOUNT_URL": "https://account.westus.batch.azure.com",
        "SNAKEMAKE_AZURE_BATCH_RESOURCE_GROUP_NAME": "group",
        "SNAKEMAKE_AZURE_BATCH_SUBSCRIPTION_ID": "00000000-0000-0000-0000-000000000000",
    }
    # What is the user's own is in the bucket beforehand.
    own = [path for folder in ("data", "report") for path in (workspace.path / folder).rglob("*") if path.is_file()]
    held = [f"snaketune/{path.relative_to(workspace.path).as_posix()}" for path in own]
    with storage(held) as (variables, asked):
        found = planned(python, workspace, name, **place, **variables)
    assert found == planned(python, workspace, "default")
    assert found["train_adapter"] == 1
    assert asked, json.dumps(found)
