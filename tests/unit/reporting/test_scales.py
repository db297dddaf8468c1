"""The published table over several scales: the largest model decides, and what smaller ones said is told."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from support.measurements import MIB, resources, run_script, save_properties

import published_table
from snaketune.config.claims import COLUMNS, ROWS
from snaketune.core.errors import UserError
from snaketune.core.files import read_json, read_yaml
from snaketune.reporting.scales import SIZES, combine, page, with_tensors

SMALL, LARGE = "phi3-36m", "qwen3-0.6b-random"


def evidence(model: str, name: str = "peak", **more: Any) -> dict[str, Any]:
    about = {"model": model, "device": "a processor", "tokens": 5000, "decides": True, "withheld": None}
    return {"name": name, "figure": 0.5, "text": f"{name}: 0.5", **about, **more}


def cell(measured: str, *found: dict[str, Any], why: str | None = None) -> dict[str, Any]:
    return {"measured": measured, "why": why, "evidence": list(found)}


def gained(model: str, scenario: str, better: bool = True, withheld: str | None = None) -> dict[str, Any]:
    one = evidence(model, f"{scenario}, difference", scenario=scenario, better=better, withheld=withheld)
    return cell("not-measured", one)


def combined(row: str, column: str, *scales: dict[str, Any]) -> dict[str, Any]:
    found = combine(
        [{(row, column): scale} for scale in scales], {"memory": {"dora": {"verdict": "yes", "text": "less"}}}
    )
    assert len(found) == len(ROWS) * len(COLUMNS)
    return next(one for one in found if (one["row"], one["column"]) == (row, column))


def test_the_largest_model_decides_and_a_flip_is_told() -> None:
    found = combined("memory", "DoRA", cell("no", evidence(SMALL)), cell("yes", evidence(LARGE)))
    assert (found["measured"], found["others"]) == ("yes", [("no", "36M")])
    text = page([found])
    assert "yes (0.6B), no (36M)" in text
    assert "- **DoRA: reduces memory use**: yes with 0.6B, no with 36M." in text
    assert "| DoRA (`dora`) | yes | qwen3-0.6b-random, a processor, 5,000 tokens | peak: 0.5 | – | yes: less |" in text


def test_a_larger_model_that_measured_nothing_decides_nothing() -> None:
    found = combined("cost", "LoRA", cell("no", evidence(SMALL)), cell("not-measured", why="restored"))
    assert (found["measured"], found["others"]) == ("no", [])
    assert combined("cost", "LoRA", cell("not-measured", why="restored"))["why"] == "restored"


@pytest.mark.parametrize(
    ("withheld", "better", "expected"),
    [(None, True, "yes"), (None, False, "no"), ("not decided: one seed", False, "yes")],
)
def test_each_scenario_of_a_capability_is_of_the_largest_model_that_decided_it(
    withheld: str | None, better: bool, expected: str
) -> None:
    small = cell("yes", *(gained("tiny-phi3", name)["evidence"][0] for name in ROWS["nlp"].scenarios))
    found = combined("nlp", "LoRA", small, gained("smollm2-135m-instruct", "classification", better, withheld))
    assert found["measured"] == expected
    assert found["evidence"][0]["model"] == ("tiny-phi3" if withheld else "smollm2-135m-instruct")
    assert [one["model"] for one in found["evidence"][1:]] == ["tiny-phi3"] * 2


def test_a_capability_lacks_its_verdict_without_each_scenario() -> None:
    found = combined("nlp", "LoRA", gained("tiny-phi3", "ner"))
    assert (found["measured"], found["why"]) == ("not-measured", "classification, translation: not run")


def test_followed_tensors_decide_and_resident_memory_stands_beside_them() -> None:
    peak = evidence(LARGE, "peak of a rank beyond imports", figure=1.4)
    found = with_tensors(cell("no", peak), [evidence(LARGE, "all tensors"), evidence(LARGE, "states")])
    assert found["measured"] == "yes"
    assert [one["decides"] for one in found["evidence"]] == [True, True, False]
    assert with_tensors(None, [evidence(LARGE, figure=1.0)])["measured"] == "no"


def test_the_page_is_what_the_command_writes_and_every_cell_has_a_verdict(tmp_path: Path) -> None:
    own = published_table.ROOT / "docs/published-table.md"
    again = shutil.copy(own, tmp_path / "page.md")
    run_script(published_table, "--page", again)
    assert again.read_text() == own.read_text()
    assert "not measured" not in own.read_text().partition("<!-- scales -->")[2].partition("<!-- /scales -->")[0]


@pytest.mark.parametrize(("size", "runs"), [("135m", 7 * 3 + 7 * 2), ("0.6b", 7 * 3)])
def test_what_the_short_runs_of_a_scale_measured_is_kept(size: str, runs: int, tmp_path: Path) -> None:
    overlay = published_table.ROOT / f"config/experiments/published-table-{size}.yaml"
    matrix = published_table.matrix_of(overlay)
    assert len(matrix.property_runs) == runs
    with pytest.raises(UserError, match="not measured yet: run `snakemake properties`"):
        published_table.keep(matrix, tmp_path, tmp_path)
    quick = {(1, number): resources(5.0, state=200 * MIB) for number in (1, 2, 3)}
    save_properties(tmp_path, {"property_runs": matrix.property_runs}, lora=quick)
    kept = published_table.kept_cells(published_table.keep(matrix, tmp_path, tmp_path))
    assert kept["cost", "LoRA"]["measured"] == "yes"
    assert {one["model"] for one in kept["cost", "LoRA"]["evidence"]} <= SIZES.keys()
    # Capabilities are none of theirs, and one number of ranks shows no sharing.
    assert {row for row, _ in kept} == {"cost", "memory", "parameters"} | ({"aggregate"} if size == "135m" else set())


def test_the_random_model_has_the_sizes_of_the_real_one() -> None:
    models = published_table.ROOT / "config/models"
    build, real = (read_yaml(models / f"qwen3-0.6b{end}.yaml") for end in ("-random", ""))
    made = {**build["build"]["architecture"], "vocab_size": build["build"]["embeddings"], "tie_word_embeddings": True}
    assert made == {key: value for key, value in real["config"].items() if key != "max_position_embeddings"}


def test_transcribed_figures_that_were_not_kept_are_empty() -> None:
    found = read_json(published_table.KEPT / f"{SMALL}.json")
    unknown = [
        one for row in found["rows"] for cell in row["cells"] for one in cell["evidence"] if one["figure"] is None
    ]
    assert "transcribed" not in found or unknown
