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
from support.experiments import MINE, OTHERS, TICKETS
from support.services.object_storage import storage
from support.workspace import Workspace

import make_environment

ROOT = Path(__file__).resolve().parents[2]
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


def test_the_image_installs_the_locks_that_it_copies() -> None:
    [install] = [rest for name, rest in instructions() if name == "RUN" and "make_environment.py" in rest]
    locks = [word for word in shlex.split(install) if word.endswith("requirements.txt")]
    assert locks == ["envs/train/requirements.txt", "envs/workflow/requirements.txt"]
    assert [f"/opt/snaketune/{lock}" for lock in locks] == [
        f"{shlex.split(rest)[-1]}requirements.txt"
        for name, rest in instructions()
        if name == "COPY" and "envs/" in rest
    ]
    options = {word for word in shlex.split(install.partition("make_environment.py")[2]) if word.startswith("--")}
    assert options == {"--directory", "--lock"}
    python = next(rest for name, rest in instructions() if name == "FROM")
    assert python == "python:${PYTHON}-slim-bookworm"


def test_the_image_has_no_root_no_secret_and_no_mirror() -> None:
    names = [name for name, _ in instructions()]
    assert dict(instructions())["USER"] == "10001"
    assert "RUN" not in names[names.index("USER") :]
    text = (ROOT / "Dockerfile").read_text()
    assert not re.search(r"https?://", text)
    kept = " ".join(rest for name, rest in instructions() if name == "ENV")
    assert "PIP_" not in kept
    assert not re.search(r"(TOKEN|PASSWORD|SECRET|KEY)=", text)
    settings = " ".join(rest for name, rest in instructions() if name == "ARG")
    known = {"PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_TRUSTED_HOST", "PIP_DEFAULT_TIMEOUT"}
    assert known <= set(settings.split())


@pytest.mark.parametrize("name", PROFILES)
def test_every_setting_of_a_profile_is_commented_and_the_rest_is_the_default(name: str) -> None:
    lines = (ROOT / f"profiles/{name}/config.yaml").read_text().splitlines()
    since = None
    for line in lines:
        if line.startswith("#"):
            since = 0
        elif not line.startswith(" "):
            # One comment may be of a few settings that follow it.
            assert since is not None, line
            since += 1
            assert since <= 5, line
    content = yaml.safe_load("\n".join(lines))
    assert not any(word in key for key in content for word in ("key", "pass", "token", "secret"))
    default = yaml.safe_load((ROOT / "profiles/default/config.yaml").read_text())
    assert {key: content[key] for key in ("rerun-triggers", "rerun-incomplete", "keep-going")} == {
        key: default[key] for key in ("rerun-triggers", "rerun-incomplete", "keep-going")
    }
    assert len(PLUGIN.findall("\n".join(lines))) == 2


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
    directory = tmp_path_factory.mktemp("plugins")
    (directory / "requirements.txt").write_text("\n".join([*pins, *plugins]) + "\n")
    return make_environment.make([directory / "requirements.txt"], directory / "environment")


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


@pytest.mark.long
@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_plans_the_jobs_that_a_laptop_does(python: Path, tmp_path: Path, name: str) -> None:
    workspace = Workspace.make(tmp_path / "workspace", OTHERS, {"config/scenarios/mine.yaml": MINE})
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
