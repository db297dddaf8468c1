"""An experiment in a directory of its own, beside a checkout that it only reads, is the same experiment."""

from pathlib import Path

import pytest
from support.workspace import Project, Workspace

from snaketune.core.files import read_yaml

LORA = "config/techniques/lora.yaml"
RECORDED = ("results", ".snakemake/metadata")
KINDS = pytest.mark.parametrize("module", [False, True], ids=["directory", "module"])


@KINDS
def test_what_was_made_in_the_checkout_is_current_in_a_project(edited: Workspace, tmp_path: Path, module: bool) -> None:
    project = Project.of(edited, tmp_path / "project", module, RECORDED)
    assert project.plans() == edited.plans()
    assert project.pending() == set()
    edited.edit(LORA, "r: 8", "r: 4")
    due = edited.pending()
    assert "train_adapter lora" in due
    assert project.pending() == due
    # A file of its own wins.
    project.write(LORA, read_yaml(edited.path / LORA))
    project.edit(LORA, "r: 4", "r: 8")
    assert project.pending() == set()


def test_a_script_of_the_checkout_makes_again_what_it_makes_there(edited: Workspace, tmp_path: Path) -> None:
    project = Project.of(edited, tmp_path / "project", False, RECORDED)
    edited.edit("scripts/snaketune/evaluation/parity.py", "@np.errstate(invalid=", "@np.errstate(over=")
    assert {job.split()[0] for job in project.pending()} == {"check_parity", "write_report", "record_results"}


def refused(project: Project) -> str:
    shown = project.forked("--dry-run")
    assert shown.returncode == 1
    text = shown.stdout + shown.stderr
    assert "Traceback" not in text
    return text


@KINDS
def test_a_directory_without_an_experiment_is_no_project(finished: Workspace, tmp_path: Path, module: bool) -> None:
    project = Project.of(finished, tmp_path / "project", module)
    (project.path / "config/config.yaml").unlink()
    assert f"{project.path}/config/config.yaml: no such file: create it with what differs" in refused(project)
    overlaid = project.forked("--dry-run", "--configfile", str(finished.path / finished.experiment))
    assert overlaid.returncode == 0, overlaid.stderr


def test_an_experiment_given_by_a_snakefile_is_that_of_its_module(finished: Workspace, tmp_path: Path) -> None:
    project = Project.of(finished, tmp_path / "project", True, RECORDED)
    own = f"given = {read_yaml(finished.path / finished.experiment)}\n"
    text = (project.path / "Snakefile").read_text().replace("Snakefile'", "Snakefile'\n    config: given")
    (project.path / "Snakefile").write_text(own + text)
    # Its config.yaml may have another form.
    project.write("config/config.yaml", {"unknown": {"to": "us"}})
    assert project.pending() == set()
    project.edit("Snakefile", "    config:", "    prefix: 'elsewhere'\n    config:")
    assert "prefix and replace_prefix would move only some of its files" in refused(project)
