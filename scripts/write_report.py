"""Write one self-contained HTML page: what to ship and how certain that is, then each scenario's measurements."""

from pathlib import Path

from snakemake.assets import Assets

from snaketune.core import cli, errors, files, paths, tables
from snaketune.core.tables import Row
from snaketune.provenance.timeline import jobs_of, last_run, made_from
from snaketune.reporting.cost_plot import COSTS, SHORT
from snaketune.reporting.params import Cell, ReportParams
from snaketune.reporting.plots import timeline
from snaketune.reporting.recommend_technique import OF
from snaketune.reporting.section import section
from snaketune.reporting.summary import HOSTED
from snaketune.reporting.templates import render

# Snakemake's own report draws with the same files.
VEGA = ("vega/vega.js", "vega-lite/vega-lite.js", "vega-embed/vega-embed.js")


def page_data(sections: list[Row], jobs: list[Row]) -> Row:
    """Return what the page's script draws and lists."""
    plots = {f"{name}-{n}": spec for n, part in enumerate(sections, 1) for name, spec in part["plots"].items()}
    if jobs:
        plots["timeline"] = timeline(jobs)
    answers = {n: part["answers"] for n, part in enumerate(sections, 1)}
    return {"plots": plots, "costs": COSTS, "answers": answers}


def recorded_jobs(results: Path, cells: list[Cell]) -> tuple[list[Row], list[Row]]:
    """Return the jobs of the last run and those before, if Snakemake's records are here; only this experiment's."""
    runs = [results / paths.run_path(*cell) for cell in cells]
    made = [path for run in runs for kind in ("json", "jsonl", "csv") for path in run.rglob(f"*.{kind}")]
    return last_run(jobs_of(sorted(made_from([results / paths.SUMMARY[0], results / paths.TABLE, *made]))))


def main() -> None:
    arguments = cli.job_parser(__doc__, ReportParams, "--results --template --output").parse_args()
    results = arguments.results

    rows = tables.read(results / "summary.csv")
    comparisons = files.read_json(results / "comparisons.json")
    sections = [section(found, rows, results, arguments.recipe) for found in comparisons]
    jobs, earlier = recorded_jobs(results, arguments.recipe["cells"])
    content = {
        "table": files.read_json(results / "technique_table.json"),
        "sections": sections,
        "hosted": [row for row in rows if row["backend"] == HOSTED],
        "recipe": arguments.recipe,
        "costs": SHORT,
        "jobs": jobs,
        "earlier": earlier,
        "data": page_data(sections, jobs),
        "vega": [Assets.get_content(name) for name in VEGA],
    }
    files.write_text(arguments.output, render(arguments.template, True, content))
    for found in comparisons:
        print(
            f"{found['model']} {found['scenario']}: recommended of the {OF[found['claim']]}s: {found['recommended'] or 'none'}: {found['reason']}; chosen on validation: {found['chosen_on_validation']['technique']}"
        )


if __name__ == "__main__":
    errors.run(main)
