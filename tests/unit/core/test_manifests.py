"""Hashes, manifests and comparisons of what made a file."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snaketune.core import files, manifest
from snaketune.core.errors import UserError
from snaketune.core.file_digests import FileDigests
from snaketune.core.nested import differences, flat
from snaketune.provenance.manifest_chain import links, unnamed
from snaketune.provenance.snakemake_records import recipe_of

KEYS = st.text("abc", min_size=1, max_size=3)
NESTED = st.recursive(st.integers() | st.text(max_size=3), lambda inner: st.dictionaries(KEYS, inner, max_size=3))
MAPPINGS = st.dictionaries(KEYS, NESTED, max_size=4)


@given(MAPPINGS)
def test_a_mapping_differs_from_itself_in_nothing(one: dict[str, Any]) -> None:
    assert differences(one, json.loads(json.dumps(one))) == {}


@given(MAPPINGS, MAPPINGS)
def test_differences_are_those_of_the_leaves_and_turn_with_the_sides(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    found = differences(one, other)
    assert found == {key: (a, b) for key, (b, a) in differences(other, one).items()}
    assert bool(found) == (flat(one) != flat(other))


def test_the_recipe_is_found_among_other_params() -> None:
    recipe = json.dumps({"r": 8, "name": "it's"})
    assert recipe_of({"params": sorted(map(repr, ["python", "results/x", recipe]))}) == {"r": 8, "name": "it's"}


@pytest.fixture
def old_file(tmp_path: Path) -> Path:
    """A file whose digest may be remembered: it was last changed some time ago, and that time can't be set back."""
    path = tmp_path / "rows.jsonl"
    path.write_text("one")
    time.sleep(2.1)
    return path


def test_a_digest_is_remembered_and_not_read_again(
    old_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = FileDigests(tmp_path / "digests.json").of(old_file)
    assert first == files.sha256(old_file)
    monkeypatch.setattr("snaketune.core.file_digests.sha256", lambda path: pytest.fail("it was read again"))
    assert FileDigests(tmp_path / "digests.json").of(old_file) == first


@pytest.mark.parametrize("text", ["two", "longer"])
def test_a_changed_file_is_read_again_whatever_its_times(old_file: Path, tmp_path: Path, text: str) -> None:
    times = old_file.stat()
    first = FileDigests(tmp_path / "digests.json").of(old_file)
    old_file.write_text(text)
    os.utime(old_file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert FileDigests(tmp_path / "digests.json").of(old_file) not in (first, None)


def test_a_file_just_written_is_not_remembered_and_a_spoiled_memory_no_harm(tmp_path: Path) -> None:
    new, memory = tmp_path / "rows.jsonl", tmp_path / "digests.json"
    new.write_text("one")
    FileDigests(memory).of(new)
    assert not memory.exists()
    memory.write_text("{")
    assert FileDigests(memory).of(new) == files.sha256(new)


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """A manifest of one file with one input."""
    directory = tmp_path / "results/part"
    directory.mkdir(parents=True)
    (directory / "weights").write_text("weights")
    (tmp_path / "input").write_text("input")
    manifest.record(directory, {"r": 8}, [tmp_path / "input"], [directory / "weights"])
    return directory / "manifest.json"


def test_a_true_manifest_is_proven(recorded: Path) -> None:
    manifest.prove(recorded)
    manifest.record(recorded.parents[1], {}, [recorded], [])
    found = {path.name for path, _, _ in links(recorded.parents[1])}
    assert found == {"weights", "input", "manifest.json"}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.with_name("weights").write_text("others!"), "has changed since it was made"),
        (lambda path: path.with_name("weights").unlink(), "weights is missing"),
        (lambda path: path.unlink(), "manifest.json is missing"),
        (lambda path: path.write_text("{"), "is no manifest"),
        (lambda path: path.write_text("[]"), "is no manifest"),
        (lambda path: path.write_text('{"files": {}, "inputs": {}}'), "is no manifest"),
        (lambda path: path.write_text('{"files": {}, "inputs": {}, "recipe": {}}'), "doesn't name weights"),
    ],
)
def test_a_manifest_that_does_not_hold_is_one_message(recorded: Path, spoil: Any, message: str) -> None:
    spoil(recorded)
    with pytest.raises(UserError, match=message):
        manifest.prove(recorded, "weights")


def test_equal_content_gives_equal_manifests(recorded: Path, tmp_path: Path) -> None:
    before = recorded.read_bytes()
    manifest.record(recorded.parent, {"r": 8}, [tmp_path / "input"], [recorded.with_name("weights")])
    assert recorded.read_bytes() == before


def test_files_written_together_appear_only_when_all_are_whole(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), files.written_together(tmp_path / "out") as aside:
        (aside / "first").write_text("1")
        1 / 0  # noqa: B018
    assert list((tmp_path / "out").iterdir()) == []
    (tmp_path / "out/.part").mkdir()
    (tmp_path / "out/.part/left by a killed process").write_text("")
    with files.written_together(tmp_path / "out") as aside:
        (aside / "first").write_text("1")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["first"]


def test_what_an_old_run_was_asked_for_is_not_of_the_chain(tmp_path: Path) -> None:
    results = tmp_path / "results"
    for run in ("lora", "left"):
        directory = results / f"runs/model/scenario/{run}/seed-1"
        for part in ("", "package", "onnx/adapter"):
            (directory / part).mkdir(parents=True, exist_ok=True)
            (directory / part / "file").write_text(run)
            manifest.record(directory / part, {}, [], [directory / part / "file"])
    (results / "models/left/switchable/lora").mkdir(parents=True)
    manifest.record(results / "models/left/switchable/lora", {}, [], [])
    (results / "params.yaml").write_text("experiment: {keep_intermediates: true}")
    manifest.record(results, {}, [results / "runs/model/scenario/lora/seed-1/manifest.json"], [results / "params.yaml"])
    found = list(links(results))
    assert {path.relative_to(results).parts[3] for path, _, _ in found if path.name == "file"} == {"lora"}
    assert len([path for path, _, _ in found if path.name == "file"]) == 3
    left = {path.relative_to(results).as_posix() for path in unnamed(results, found)}
    old = [f"runs/model/scenario/left/seed-1/{part}" for part in ("", "package/", "onnx/adapter/")]
    assert left == {
        *(f"{part}{name}" for part in old for name in ("file", "manifest.json", "provenance.json")),
        "models/left/switchable/lora/manifest.json",
        "models/left/switchable/lora/provenance.json",
    }
