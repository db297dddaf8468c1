"""What a dry run would do and why, as a table that fits on a screen."""

import ast
import json
from collections import Counter
from typing import Any

from snaketune.core.nested import differences

# Lines; what is more is put together by rule.
SCREEN = 32
WORDS = {"code": "code changed", "environment": "libraries changed"}


def recipe_in(params: set[str]) -> dict[str, Any]:
    """Return the recipe among params, which Snakemake compares as texts: Python's literals of JSON."""
    for text in params:
        try:
            value = json.loads(ast.literal_eval(text))
        except (ValueError, SyntaxError, TypeError):
            continue
        if isinstance(value, dict):
            return value
    return {}


def changed(params: Any) -> str:
    """Say in what a job's params differ from those of its last run."""
    keys = list(differences(recipe_in(params.only_old), recipe_in(params.only_new)))
    said = [WORDS[key] for key in keys if key in WORDS]
    if others := [key for key in keys if key not in WORDS]:
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        said.append(f"its recipe changed: {', '.join(others[:3])}{more}")
    return "; ".join(said) or "its parameters changed"


def why(reason: Any) -> str:
    """Return the reason for a job, in words; only the first cause counts, since the others follow from it or matter less."""
    causes = (
        (reason.forced, "forced by --force"),
        (reason.incomplete_output, "was interrupted"),
        (reason.params_changed, ""),
        (reason.code_changed, "code changed"),
        (reason.software_stack_changed, "libraries changed"),
        (reason.missing_output, "new"),
        (reason.input_changed, "its inputs changed"),
        (reason.updated_input - reason.updated_input_run, "an input is newer"),
        (reason.updated_input_run, "an input will be remade"),
    )
    return next((words or changed(reason.params_changed) for found, words in causes if found), "always runs")


def table(jobs: list[tuple[str, Any]]) -> str:
    """Return a line for each rule and reason: how many jobs, and why.

    Args:
        jobs: the rule's name and Snakemake's Reason of each job, in the order in which they would run.
    """
    counts = Counter((rule, why(reason)) for rule, reason in jobs)
    if len(counts) > SCREEN:
        reasons: dict[str, Counter[str]] = {}
        for (rule, told), count in counts.items():
            reasons.setdefault(rule, Counter())[told] += count
        rows = [
            (
                rule,
                each.total(),
                each.most_common(1)[0][0] + (f", or {len(each) - 1} other reasons" if len(each) > 1 else ""),
            )
            for rule, each in reasons.items()
        ]
    else:
        rows = [(rule, count, told) for (rule, told), count in counts.items()]
    width = max(len("rule"), *(len(rule) for rule, _, _ in rows))
    lines = [f"{'rule':{width}}  jobs  why", *(f"{rule:{width}}  {count:>4,}  {told}" for rule, count, told in rows)]
    end = "Nothing was run; `snakemake -n --quiet host` lists each job with its files."
    return "\n".join([*lines, f"{'total':{width}}  {len(jobs):>4,}", end])
