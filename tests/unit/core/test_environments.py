"""Packages come from where pip would get them, at the same versions however one installs."""

import os
import re
import sys
from pathlib import Path

import pytest
import yaml

import make_environment
from make_environment import pip_settings
from snaketune.core.files import sha256

ENVIRONMENTS = Path(__file__).parents[3] / "envs"


INDEX, FILE_INDEX = "https://example.org/main", "https://example.org/of-file"
SEVERAL = {
    "PIP_INDEX_URL": INDEX,
    "PIP_EXTRA_INDEX_URL": "https://example.org/one https://example.org/two",
    "PIP_FIND_LINKS": "https://example.org/wheels /a/folder",
    "PIP_TRUSTED_HOST": "example.org",
    "PIP_CERT": "/a/certificate.pem",
}
AS_UV = {
    "UV_DEFAULT_INDEX": INDEX,
    "UV_INDEX": "https://example.org/one https://example.org/two",
    "UV_FIND_LINKS": "https://example.org/wheels,/a/folder",
    "UV_INSECURE_HOST": "example.org",
    "SSL_CERT_FILE": "/a/certificate.pem",
}


@pytest.mark.parametrize(
    ("variables", "file", "expected"),
    [
        ({}, "", {}),
        (SEVERAL, "", AS_UV),
        ({"PIP_INDEX_URL": INDEX, "UV_DEFAULT_INDEX": "of-uv"}, "", {"UV_DEFAULT_INDEX": "of-uv"}),
        (
            {},
            f"index-url = {FILE_INDEX}\nextra-index-url =\n  more\n",
            {"UV_DEFAULT_INDEX": FILE_INDEX, "UV_INDEX": "more"},
        ),
        ({"PIP_INDEX_URL": INDEX}, f"index-url = {FILE_INDEX}", {"UV_DEFAULT_INDEX": INDEX}),
    ],
    ids=["none", "pip's variables", "uv's own win", "pip's file", "pip's variables win over its file"],
)
def test_pips_settings_become_uvs(
    variables: dict[str, str], file: str, expected: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in os.environ:
        if name.startswith(("PIP_", "UV_")):
            monkeypatch.delenv(name)
    (tmp_path / "pip.conf").write_text(f"[global]\n{file}")
    # Beside any other file, pip reads this machine's own too.
    for name, value in {"PIP_CONFIG_FILE": str(tmp_path / "pip.conf") if file else os.devnull, **variables}.items():
        monkeypatch.setenv(name, value)
    found = {name: value.strip() for name, value in pip_settings(sys.executable).items()}
    assert ({"UV_INDEX_STRATEGY": "unsafe-best-match"} | expected).items() <= found.items()
    assert file or len(found) == 1 + len(expected)


@pytest.mark.parametrize(
    ("writable", "made", "shared"), [(True, False, True), (False, True, True), (False, False, False)]
)
def test_projects_share_the_environments_of_a_checkout_that_has_them_or_can_be_written(
    writable: bool, made: bool, shared: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(make_environment, "__file__", str(tmp_path / "scripts/make_environment.py"))
    monkeypatch.setattr(os, "access", lambda path, mode: writable)
    lock = tmp_path / "envs/export/requirements.txt"
    lock.parent.mkdir(parents=True)
    lock.write_text("onnx==1\n")
    name = f"work/environments/export-{sha256(lock)[:12]}"
    if made:
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "locks.sha256").write_text(sha256(lock))
        assert make_environment.make([lock], tmp_path / name) == tmp_path / name / "bin/python"
        assert not list(tmp_path.glob("work/environments/.*.lock"))
    assert make_environment.place_of([lock]) == (tmp_path if shared else Path()) / name


def pins(name: str) -> list[str]:
    lines = (ENVIRONMENTS / name / "requirements.txt").read_text().splitlines()
    return [line for line in lines if not line.startswith("#")]


@pytest.mark.parametrize("name", ["train", "export", "publish", "workflow", "dev"])
def test_a_lock_pins_each_package_and_names_no_place(name: str) -> None:
    lines = pins(name)
    assert lines
    assert [line for line in lines if not re.fullmatch(r"[a-z0-9-]+==[\w.!]+( ; [^/\\@]+)?", line)] == []


@pytest.mark.parametrize("name", ["train", "export", "publish", "workflow"])
def test_conda_and_pip_get_the_same_versions(name: str) -> None:
    text = (ENVIRONMENTS / name / "environment.yaml").read_text()
    environment = yaml.safe_load(text)
    [by_pip] = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert by_pip == pins(name), "run `make lock`"
    assert environment["channels"] == ["conda-forge", "nodefaults"]
    assert "://" not in text


@pytest.mark.parametrize(("name", "below"), [("workflow", "train"), ("dev", "workflow")])
def test_what_is_installed_on_top_has_the_same_versions(name: str, below: str) -> None:
    one, other = ({line.split(" ;")[0] for line in pins(lock)} for lock in (below, name))
    assert one - other == set()


def test_no_training_result_depends_on_the_version_of_snakemake_or_dvc() -> None:
    assert not [line for line in pins("train") if line.startswith(("snakemake", "dvc"))]


@pytest.mark.parametrize("name", ["train", "export", "publish", "workflow", "dev"])
def test_every_requirement_is_locked(name: str) -> None:
    asked = (ENVIRONMENTS / name / "requirements.in").read_text().splitlines()
    names = {re.split(r"[\[=<> ;]", line)[0].lower() for line in asked if line and not line.startswith(("#", "-"))}
    assert names - {line.split("==")[0] for line in pins(name)} == set()
