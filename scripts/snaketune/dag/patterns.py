"""The directories of results as rules name them: from the repository's root, with wildcards in braces."""

import re
from collections.abc import Iterable

from snaketune.core import paths

RESULTS = "results"
CORPUS, DATA, MODEL = f"{RESULTS}/{paths.CORPUS}", f"{RESULTS}/{paths.DATA}", f"{RESULTS}/{paths.MODEL}"
BASE, TOKENIZER = f"{RESULTS}/{paths.BASE}", f"{RESULTS}/{paths.TOKENIZER}"
TRAINING, TEST = f"{RESULTS}/{paths.TRAINING}", f"{RESULTS}/{paths.TEST}"
RUNS, RUN = f"{RESULTS}/{paths.RUNS}", f"{RESULTS}/{paths.RUN}"
# The exports of a run; or, with an empty `run`, those of the untuned model, which are the model's.
UNTUNED_FORMS = f"{RESULTS}/{{tree}}/{{model}}{{run}}"
EXPORTS = f"{UNTUNED_FORMS}/onnx"
UNTUNED = RUN.replace("{technique}", "base").replace("{seed}", "0")
SWITCHABLE = f"{MODEL}/switchable"
PROPERTIES = f"{RESULTS}/properties/{{technique}}/ranks-{{ranks}}/round-{{round}}"
TUNING = f"{RESULTS}/tuning/{{model}}/{{scenario}}/{{technique}}/{{rate}}"
SUMMARY = [f"{RESULTS}/{name}" for name in paths.SUMMARY]
TABLE, REPORT = f"{RESULTS}/{paths.TABLE}", f"{RESULTS}/{paths.REPORT}"
PLOTS = [f"{RESULTS}/{name}" for name in paths.PLOTS]
CARD = ["report/model_card.md.j2", "report/card/facts.md.j2", "report/card/verdict.md.j2"]
PROGRAM = "report/run.py"
# The first is the whole page, which includes the others.
PAGE = [
    "report/report.html.j2",
    *(f"report/page/{name}.html.j2" for name in ("answers", "claims", "decision", "hosted", "made", "section")),
    "report/page/style.css",
    "report/page/page.js",
]


def files_in(directory: str, names: Iterable[str]) -> list[str]:
    return [f"{directory}/{name}" for name in names]


def one_of(names: Iterable[str]) -> str:
    """Return a regular expression of a wildcard that may be any of these names."""
    return "|".join(map(re.escape, names)) or "none"
