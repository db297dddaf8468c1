"""The page shows what was measured, calls no difference that its interval doesn't show, and stands alone."""

import itertools
import json
import re
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from support.measurements import MIB, run_script, save_evaluation, save_experiment, save_properties, table_recipe

import summarize
import write_exports
import write_figures
import write_report
import write_technique_table
from snaketune.core.errors import UserError
from snaketune.core.files import read_json, read_jsonl, write_json, write_jsonl
from snaketune.core.paths import SUMMARY
from snaketune.reporting.decision import on_validation
from snaketune.reporting.difference import Difference
from snaketune.reporting.numbers import measured
from snaketune.reporting.plots import colours

TEMPLATE = Path(__file__).parents[3] / "report/report.html.j2"
SKILLS = {"base": 0.3, "full": 0.8, "lora": 0.6, "peft-ia3": 0.31}
ALL = ["full", "lora", "qlora", "dora", "qdora", "peft-ia3", "peft-prefix", "peft-vera", "deepspeed", "zero2", "zero3"]


def page(
    results: Path,
    scenarios: list[str],
    seeds: list[int],
    precisions: list[str] | None = None,
    skills: dict[str, float] = SKILLS,
    rounds: int = 0,
    hosted: list[dict[str, object]] | None = None,
    test_rows: int = 120,
) -> str:
    """The report of an experiment, summarized and measured as the workflow does it."""
    recipe = save_experiment(results, skills, scenarios, seeds, precisions, test_rows) | {"hosted": hosted or []}
    shared = ("--recipe", json.dumps(recipe), "--results", results)
    run_script(summarize, *shared, *(f"--{Path(name).stem}={results}/{name}" for name in SUMMARY))
    of_table = table_recipe(scenarios, [name for name in skills if name != "base"], rounds)
    save_properties(results, of_table)
    table = ("--output", results / "technique_table.json")
    run_script(write_technique_table, "--recipe", json.dumps(of_table), "--results", results, *table)
    run_script(write_report, *shared, "--template", TEMPLATE, "--output", results / "report.html")
    return (results / "report.html").read_text()


@pytest.fixture(scope="module")
def classification(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of an experiment whose page several tests read."""
    results = tmp_path_factory.mktemp("classification")
    page(results, ["classification"], [1])
    return results


@pytest.fixture(scope="module")
def domain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another, with all that the published table claims."""
    results = tmp_path_factory.mktemp("domain")
    page(results, ["domain"], [1], rounds=3)
    return results


def rows(text: str, heading: str) -> list[list[str]]:
    """The cells of the first table after a heading, without their tags."""
    table = text[text.index(f"<h3>{heading}") :].split("</table>")[0]
    lines = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", line) for line in table.split("<tr")[1:]]
    return [[unescape(re.sub("<[^>]*>", " ", cell)).strip() for cell in line] for line in lines]


@pytest.mark.parametrize(
    ("low", "high", "higher_is_better", "told"),
    [
        (-0.1, 0.2, True, "no difference shown"),
        (-0.1, 0.2, False, "no difference shown"),
        (0.0, 0.2, True, "no difference shown"),
        (0.1, 0.2, True, "better"),
        (0.1, 0.2, False, "worse"),
        (-0.2, -0.1, True, "worse"),
        (-0.2, -0.1, False, "better"),
    ],
)
def test_a_difference_is_called_only_where_its_interval_excludes_zero(
    low: float, high: float, higher_is_better: bool, told: str
) -> None:
    assert Difference(0, low, high, higher_is_better).verdict == told


@pytest.mark.parametrize("scenario", ["classification", "domain"])
def test_quality_is_told_by_technique_with_the_verdict_of_the_simultaneous_interval(
    scenario: str, request: pytest.FixtureRequest
) -> None:
    results: Path = request.getfixturevalue(scenario)
    text = (results / "report.html").read_text()
    comparison = read_json(results / "comparisons.json")[0]
    found = {row[0]: row for row in rows(text, "Quality of each technique")}
    assert {name: row[-1] for name, row in found.items() if name in SKILLS} == {
        "full": "better",
        "lora": "better",
        "peft-ia3": "no difference shown",
    }
    pair = next(one for one in comparison["pairs"] if (one["a"], one["b"]) == ("base", "full"))
    low, high = (measured(-pair[end], True) for end in ("ci_high", "ci_low"))
    assert found["full"][4] == f"{low} to {high}"
    assert f"{comparison['metric']}: {'lower' if scenario == 'domain' else 'higher'} is better" in text
    assert "not corrected" not in text


def test_two_techniques_are_called_equal_or_the_better_one_is_named(tmp_path: Path) -> None:
    text = page(tmp_path, ["domain"], [1], skills={"base": 0.3, "full": 0.8, "deepspeed": 0.8, "lora": 0.5})
    told = {(row[0], row[1]): row[-3:] for row in rows(text, "Techniques against each other")}
    assert told["full", "deepspeed"] == ["no difference shown", "trained models", "more test rows"]
    both = "trained models; between techniques not decided: one seed"
    assert told["full", "lora"] == ["full is better", both, "more seeds"]
    assert told["untuned", "lora"] == ["lora is better", "trained models", "–"]
    assert "recommended among these trained models" in text
    assert '<p class="headline">full</p>' in text
    assert (
        "No difference shown between full, deepspeed; of those that beat the untuned model take full: all hold" in text
    )
    assert "More seeds would settle 2 comparisons (full and lora, deepspeed and lora)" in text
    text = page(tmp_path / "b", ["domain"], [1, 2, 3], skills={"base": 0.3, "full": 0.8, "lora": 0.5})
    told = {(row[0], row[1]): row[-3:] for row in rows(text, "Techniques against each other")}
    assert told["full", "lora"] == ["full is better", "techniques", "–"]
    assert "tiny · recommended</h3>" in text
    assert "full (seed 1), full (seed 2), full (seed 3)" in text


def test_a_single_technique_is_told_in_the_singular_with_the_way_to_its_model(tmp_path: Path) -> None:
    text = page(tmp_path, ["classification"], [1], ["fp32", "int8"], {"base": 0.1, "lora": 0.8})
    assert "It beats the untuned model by a paired interval that excludes zero." in text
    assert "1 comparison</summary>" in text
    assert [words for words in ("comparisons at once", "1 comparisons", "1 epochs", "-0.0000") if words in text] == []
    run = "results/runs/tiny/classification/lora/seed-1"
    assert f"The model to ship: <code>{run}/onnx/" in text
    assert f"make chat RUN={run}<" in text
    assert re.search(r"Untuned model: accuracy [\d.]+; always the most frequent label: [\d.]+\.</p>", text)


def test_too_few_rows_decide_nothing(tmp_path: Path) -> None:
    text = page(tmp_path, ["classification"], [1], skills={"base": 0.0, "full": 1.0}, test_rows=12)
    assert "12 test rows are too few" in text
    assert rows(text, "Quality of each technique")[2][-1] == "not decided: 12 of the 20 test rows that a verdict takes"
    table = read_json(tmp_path / "technique_table.json")
    assert table["counts"] == {"yes": 0, "no": 0, "not-measured": 54}


def test_several_seeds_are_one_row_with_the_mean_and_each_seeds_value(tmp_path: Path) -> None:
    text = page(tmp_path, ["classification"], [1, 2, 3])
    lines = rows(text, "Quality of each technique")
    assert [row[0] for row in lines] == ["technique", "untuned", "full", "lora", "peft-ia3"]
    full = lines[2]
    seeds = [float(value) for value in full[3].split("/")]
    assert len(set(seeds)) > 1
    assert float(full[1]) == pytest.approx(sum(seeds) / 3, abs=1e-3)
    assert "seeds 1, 2, 3" in text


def test_one_seed_has_no_column_of_seeds_and_no_export_no_tables_of_exports(classification: Path) -> None:
    text = (classification / "report.html").read_text()
    assert [words for words in ("each seed", "Quality of each export", "Parity") if words in text] == []


def test_exports_are_told_by_run_and_backend(tmp_path: Path) -> None:
    text = page(tmp_path, ["qa"], [1, 2], ["fp32", "int8"])
    told = [tuple(row[:3]) for row in rows(text, "Quality of each export")[1:]]
    assert len(told) == (1 + 3 * 2) * 3
    assert ("lora", "2", "onnx-int8") in told
    assert len(rows(text, "Parity of each conversion step")) == 1 + 7


def test_the_choice_on_validation_is_told_with_what_the_test_rows_say(tmp_path: Path) -> None:
    text = page(tmp_path, ["qa"], [1], ["fp32", "int8"])
    assert "without the test rows, chooses full, too." in text
    assert re.search(r"<dt>shipped as (fp32|int8)</dt>[^;]+; before export [0-9.]+<", text)
    text = page(tmp_path / "b", ["qa"], [1], skills={"base": 0.3, "peft-ia3": 0.31})
    assert "chooses peft-ia3: on the test rows it is not shown to be better than the untuned model." in text


@pytest.mark.parametrize(
    ("equals", "better", "told"),
    [
        (["full", "zero3"], True, "no difference is shown between it and full, which is recommended for its cost."),
        (["full", "zero3"], False, "on the test rows it is not shown to be better than the untuned model."),
        (["full"], True, "on the test rows it is better than the untuned model, but worse than the best."),
    ],
)
def test_another_choice_on_validation_is_set_against_the_recommendation(
    equals: list[str], better: bool, told: str
) -> None:
    chosen = {"technique": "zero3", "better_than_base": better}
    comparison = {"recommended": "full", "chosen_on_validation": chosen, "equals": equals}
    assert on_validation(comparison).endswith(f"zero3: {told}")


def test_data_without_labels_tell_their_gate(domain: Path, classification: Path) -> None:
    text = (domain / "report.html").read_text()
    assert "always answering" not in text
    assert re.search(r"Data gate: <span[^>]*>passed</span>", text)
    assert "leaks 0.70 % of 140" in text
    assert "majority" not in text
    text = (classification / "report.html").read_text()
    assert "always answering the most common one scores 0.500" in text
    assert "Each question begins with: <q>Which letter?</q>" in text


def test_the_published_table_marks_and_evidences_its_contradictions(domain: Path, classification: Path) -> None:
    text = (domain / "report.html").read_text()
    assert "The published table" not in (classification / "report.html").read_text()
    header = re.findall(r"<th>(\w+)<br>\(", text)
    assert header == ["LoRA", "QLoRA", "PEFT", "DeepSpeed", "ZeRO", "DoRA"]
    cell = re.search(r'<td class="differs" title="([^"]*)">no \(page: yes\)</td>', text)
    assert cell
    assert "domain, difference from untuned" in cell[1]
    told = rows(text, "Where the measurement differs")
    scale = "tiny; a processor, 2 cores; domain: perplexity (5,000 tokens)"
    assert ["adapt a pre-trained LLM to a task or domain", "PEFT", "no", "yes", "yes", scale] in [
        row[:6] for row in told
    ]
    assert 'title="dora is no technique of this experiment">not measured' in text


def test_the_page_stands_alone_and_equal_results_give_equal_bytes(domain: Path, tmp_path: Path) -> None:
    text = (domain / "report.html").read_text()
    own = re.sub(r"<script>.*?</script>|<script type=.*?</script>", "", text, flags=re.DOTALL)
    assert not re.search(r"<(script|link|img|iframe)\b|\bsrc=|@import|url\((?!#)", own)
    assert set(re.findall(r'href="([^"#])', own)) == set()
    # A browser refuses what would be fetched after all.
    assert "default-src 'none'" in own
    assert page(tmp_path, ["domain"], [1], rounds=3) == text


def test_a_page_of_every_technique_is_written_each_with_its_own_colour(tmp_path: Path) -> None:
    names = [*ALL, "lora-zero3", "mine"]
    assert len(set(colours(names).values())) == len(names)
    text = page(tmp_path, ["domain"], [1], skills={"base": 0.3, **dict.fromkeys(ALL, 0.6)})
    assert [row[0] for row in rows(text, "Cost of each technique")[2:]] == ALL


def write_readme(results: Path, readme: Path) -> str:
    paths = ("--summary", results / "summary.csv", "--table", results / "technique_table.json", "--pages", readme)
    run_script(write_figures, *paths, "--benchmarks", results / "benchmarks")
    return readme.read_text()


EXPORTS = """
models: [phi3-1m]
techniques: [full, lora, lora-int4]
precisions: [fp32, int8, int4, auto]
evaluation: {bootstrap_samples: 500, confidence: 0.9}
"""


def test_the_page_of_exports_compares_each_with_torch_and_with_the_goals(tmp_path: Path) -> None:
    results, text, experiment = tmp_path / "results", tmp_path / "export.md", tmp_path / "exports.yaml"
    experiment.write_text(EXPORTS)
    skills = {"lora": 0.5, "lora-int4": 0.9}
    save_experiment(results, skills, ["classification"], [1], ["fp32", "int8", "int4", "auto"])
    (results / "runs/tiny").rename(results / "runs/phi3-1m")
    for technique, backend in itertools.product(skills, ("torch", "onnx-fp32", "onnx-int8", "onnx-int4", "onnx-auto")):
        evaluated = results / f"runs/phi3-1m/classification/{technique}/seed-1/evaluation/{backend}"
        logits = np.array([[float(backend == "onnx-int8"), 0, 0]] * 4, np.float32)
        save_file({"logits": logits, "positions": np.array([2, 2])}, f"{evaluated}.logits.safetensors")
        answers = [row | {"nll": 1.0, "answer_tokens": 2} for row in read_jsonl(Path(f"{evaluated}.predictions.jsonl"))]
        write_jsonl(Path(f"{evaluated}.predictions.jsonl"), answers)
        figures = Path(f"{evaluated}.json")
        write_json(figures, read_json(figures) | {"threads": 1, "hardware": {"processor": "one", "cores": 2}})
    loss = {"kl_divergence": {"mean": 0.01, "upper": 0.02}}
    chosen = {
        "bits": {"down": 8},
        "sensitivity": {"down": {"4": loss, "8": loss}},
        "predicted": {"kl_divergence": 0.01},
    }
    manifest = {"files": {"model.onnx_data": {"bytes": MIB}}, "recipe": {"chosen": chosen | {"proven": loss, "tried": 2, "validation_rows": 9}}}  # fmt: skip
    write_json(results / "runs/phi3-1m/classification/lora/seed-1/onnx/auto/manifest.json", manifest)
    write_json(results / "models/phi3-1m/switchable/int4/manifest.json", manifest)
    text.write_text("before\n<!-- exports -->\n<!-- /exports -->\n<!-- kinds -->\n<!-- /kinds -->\n")
    run_script(write_exports, "--results", results, "--page", text, "--experiment", experiment)
    heads, _, torch, *lines = text.read_text().splitlines()[2:]
    assert heads.startswith(
        "| scenario | technique | precision | accuracy | change from torch | KL, nats | perplexity |"
    )
    assert torch.startswith("| classification | `lora` | torch | ")
    assert torch.split(" | ")[4:6] == ["–", "–"]
    of = {tuple(line.split(" | ")[1:3]): line.split(" | ") for line in lines if line.startswith("| classification")}
    assert of["`lora`", "`fp32`"][5] == "0.0000"
    # Of (1/3, 1/3, 1/3) from softmax(1, 0, 0).
    assert float(of["`lora`", "`int8`"][5]) == pytest.approx(np.log((np.e + 2) / 3) - 1 / 3, abs=1e-4)
    assert ("`lora-int4`", "`int8`") not in of
    # The adapter and the base that it is for, of a fp32 export of 2 MiB.
    assert of["`lora-int4`", "`int4`"][7] == "1.500"
    told = next(line for line in lines if "test rows" in line)
    assert "seed 1: n = 120 test rows; KL over 4 positions of 2 rows" in told
    assert "90 % paired bootstrap intervals" in told
    assert "**Not complete**: classification/full aren't finished." in told
    reached = {line.split(" | ")[0]: line for line in lines if line.endswith(("| yes |", "| **no** |"))}
    verdicts = {goal.strip("| "): line.split(" | ")[-1] for goal, line in reached.items()}
    assert verdicts[write_exports.SHIPPED_AS_TRAINED[0]] == "yes |"
    assert verdicts[write_exports.SHIPPED_AHEAD[0]] == "yes |"
    assert verdicts[write_exports.AUTO_BYTES[0]] == "**no** |"
    assert "| classification | `lora` | down | 0.0100, 0.0200 | 0.0100, 0.0200 | 8 |" in lines
    with pytest.raises(UserError, match="is finished: make one first, `make export-table"):
        run_script(write_exports, "--results", tmp_path, "--page", text, "--experiment", experiment)


def test_every_job_of_the_experiment_counts_in_the_shares_of_its_steps(tmp_path: Path) -> None:
    page(tmp_path, ["classification"], [1], ["fp32", "int8", "int4"])
    run = "tiny/classification/lora/seed-1"
    jobs = ["pretrain_model/tiny", "tokenize_data/tiny/classification", f"train/{run}", f"evaluate/{run}/onnx-int4"]
    jobs += [f"export/runs/{run}/int8", "export/models/tiny/fp32", "train/another/classification/lora/seed-1"]
    for job in jobs:
        path = tmp_path / f"benchmarks/{job}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("s\n1\n")
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- shares-tiny -->\nold\n<!-- /shares-tiny -->\nafter\n")
    text = write_readme(tmp_path, readme)
    assert re.findall(r"\| (\d+) %", text) == ["17", "17", "17", "33", "17"]
    assert text.startswith("before\n<!-- shares-tiny -->\n| step |")
    assert text.endswith("<!-- /shares-tiny -->\nafter\n")
    readme.write_text("no marker\n")
    with pytest.raises(UserError, match="<!-- quality-tiny -->"):
        write_readme(tmp_path, readme)
    assert readme.read_text() == "no marker\n"


def test_runs_at_services_have_a_table_of_their_own(classification: Path, tmp_path: Path) -> None:
    for part, skill in (("seed-1", 0.9), ("untuned", 0.2)):
        run = tmp_path / f"runs/gpt/classification/service/{part}"
        save_evaluation(run, "hosted", "accuracy", skill, 120, 1)
        write_json(run / "evaluation/hosted.json", {"metrics": {"accuracy": skill}, "n": 120})
        write_json(run / "resources.json", {"train_tokens": 4321, "seconds": None})
    one = {"cell": ["gpt", "classification", "service", 1], "asks": True, "asks_untuned": True}
    text = page(tmp_path, ["classification"], [1], hosted=[one])
    untuned, tuned = rows(text.replace('<h2 id="hosted">', "<h3>"), "Fine-tuned by services")[1:]
    assert untuned[:4] == ["gpt", "classification", "untuned", "0"]
    assert tuned[:5] == ["gpt", "classification", "service", "1", "accuracy, higher is better"]
    assert float(tuned[7]) == pytest.approx(float(tuned[5]) - float(untuned[5]), abs=2e-3)
    assert tuned[9:] == ["120", "4,321", "–"]
    assert {row[0] for row in rows(text, "Quality of each technique")} == {"technique", "untuned", *SKILLS} - {"base"}
    assert "services" not in (classification / "report.html").read_text()
