"""Packages come from where pip would get them, at the same versions however one installs."""

import os
import re
import sys
from pathlib import Path

import pytest
import yaml

from make_environment import pip_settings

ENVIRONMENTS = Path(__file__).parents[3] / "envs"


@pytest.fixture(autouse=True)
def no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(("PIP_", "UV_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)


def test_without_settings_uv_is_told_no_place() -> None:
    assert pip_settings(sys.executable) == {"UV_INDEX_STRATEGY": "unsafe-best-match"}


def test_pips_variables_become_uvs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "https://example.org/main")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "https://example.org/one https://example.org/two")
    monkeypatch.setenv("PIP_FIND_LINKS", "https://example.org/wheels /a/folder")
    monkeypatch.setenv("PIP_TRUSTED_HOST", "example.org")
    monkeypatch.setenv("PIP_CERT", "/a/certificate.pem")
    assert pip_settings(sys.executable) == {
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_DEFAULT_INDEX": "https://example.org/main",
        "UV_INDEX": "https://example.org/one https://example.org/two",
        "UV_FIND_LINKS": "https://example.org/wheels,/a/folder",
        "UV_INSECURE_HOST": "example.org",
        "SSL_CERT_FILE": "/a/certificate.pem",
    }


def test_uvs_own_variables_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "https://example.org/of-pip")
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://example.org/of-uv")
    assert pip_settings(sys.executable)["UV_DEFAULT_INDEX"] == "https://example.org/of-uv"


@pytest.fixture
def pip_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "pip.conf"
    path.write_text(
        "[global]\nindex-url = https://example.org/of-file\nextra-index-url =\n  https://example.org/more\n"
    )
    monkeypatch.setenv("PIP_CONFIG_FILE", str(path))


@pytest.mark.usefixtures("pip_file")
def test_pips_file_is_read() -> None:
    found = pip_settings(sys.executable)
    assert found["UV_DEFAULT_INDEX"] == "https://example.org/of-file"
    assert found["UV_INDEX"].split() == ["https://example.org/more"]


@pytest.mark.usefixtures("pip_file")
def test_a_variable_wins_over_pips_file_as_it_does_for_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "https://example.org/of-variable")
    assert pip_settings(sys.executable)["UV_DEFAULT_INDEX"] == "https://example.org/of-variable"


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
    names = {re.split(r"[\[=<>]", line)[0].lower() for line in asked if line and not line.startswith(("#", "-"))}
    assert names - {line.split("==")[0] for line in pins(name)} == set()
