"""The published table from several scales: each cell by the largest model that measured it, and what smaller ones said."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from snaketune.config.claims import COLUMNS, REASONS, ROWS, Row, claimed, differs_from, page_says

# Of the smallest model to the largest, and how a cell calls each.
SIZES = {"tiny-phi3": "2.6M", "phi3-36m": "36M", "smollm2-135m-instruct": "135M", "qwen3-0.6b-random": "0.6B"}
UNMEASURED = "not-measured"
PEAK, HELD = "peak of a rank beyond imports", "weights + gradients + optimizer states of a rank"
# Figures that don't decide, but that a reader asks for.
BESIDE = (PEAK, HELD, "tokens per second")
Cell = dict[str, Any]
# Of each row and column, what one scale measured.
Cells = Mapping[tuple[str, str], Cell]


def combine(scales: Iterable[Cells], predicted: dict[str, dict[str, dict[str, str]]]) -> list[Cell]:
    """Return every cell of the table; ``scales`` come from the smallest to the largest.

    A capability takes each of its scenarios from the largest model that has it, and a property its verdict.
    """
    found, scales = [], list(scales)
    for key, row in ROWS.items():
        for column, technique in COLUMNS.items():
            seen = [scale[key, column] for scale in scales if (key, column) in scale]
            said = capability(row, seen) if row.scenarios else largest(seen)
            forecast = predicted.get(key, {}).get(technique)
            about = {"row": key, "column": column, "technique": technique, **claimed(row, column)}
            found.append(about | said | {"predicted": forecast})
    return found


def capability(row: Row, seen: list[Cell]) -> Cell:
    """Return a verdict over the row's scenarios, each by the last of the cells that measured it."""
    of = {one["scenario"]: one for cell in seen for one in cell["evidence"] if not one["withheld"]}
    missing = [name for name in row.scenarios if name not in of]
    if missing:
        return {
            "measured": UNMEASURED,
            "why": f"{', '.join(missing)}: not run",
            "evidence": list(of.values()),
            "others": [],
        }
    evidence = [of[name] for name in row.scenarios]
    verdict = "yes" if all(one["better"] for one in evidence) else "no"
    return {"measured": verdict, "why": None, "evidence": evidence, "others": flips(verdict, seen)}


def largest(seen: list[Cell]) -> Cell:
    """Return the verdict of the last cell that has one, with the resident memory of a smaller model if it has none."""
    decided = [cell for cell in seen if cell["measured"] != UNMEASURED]
    if not decided:
        why = seen[-1]["why"] if seen else "not run"
        return {"measured": UNMEASURED, "why": why, "evidence": [], "others": []}
    last, evidence = decided[-1], list(decided[-1]["evidence"])
    peaks = [one for cell in decided for one in cell["evidence"] if one["name"] == PEAK]
    if peaks and not any(one["name"] == PEAK for one in evidence):
        text = f"{peaks[-1]['text']} (with {SIZES[peaks[-1]['model']]})"
        evidence.append({**peaks[-1], "decides": False, "text": text})
    others = flips(last["measured"], decided)
    return {"measured": last["measured"], "why": None, "evidence": evidence, "others": others}


def flips(verdict: str, seen: list[Cell]) -> list[tuple[str, str]]:
    """Return (verdict, size) of the scales that said otherwise."""
    return [
        (cell["measured"], sizes(cell["evidence"])) for cell in seen if cell["measured"] not in (verdict, UNMEASURED)
    ]


def sizes(evidence: list[Cell]) -> str:
    """Return the sizes of the models that decided."""
    return ", ".join(dict.fromkeys(SIZES[one["model"]] for one in evidence if one["decides"]))


def with_tensors(cell: Cell | None, followed: list[Cell]) -> Cell:
    """Return a verdict on memory by tensors that were followed: all at one time, and the states: what a GPU must hold.

    Resident memory is kept as a figure that doesn't decide, because it includes what the host's allocator keeps.
    """
    others = [{**one, "decides": False} for one in (cell or {"evidence": []})["evidence"] if one["name"] != HELD]
    shown = all(one["figure"] < 1 for one in followed)
    return {"measured": "yes" if shown else "no", "why": None, "evidence": [*followed, *others]}


def page(cells: list[Cell]) -> str:
    """Return the table in short, what flips with scale, why cells differ from the page, and the evidence for each cell."""
    blocks = [_short(cells)]
    if flipped := [cell for cell in cells if cell["others"]]:
        blocks += ["Verdicts that flip with scale:", _grouped(flipped, _flip)]
    if differing := [cell for cell in cells if differs_from(cell)]:
        blocks += ["Where the measurement differs from the page, as published or as corrected since:"]
        blocks += [_grouped(differing, _difference)]
    return "\n\n".join([*blocks, "Every cell, with what decided it:", *_evidence(cells)])


def _short(cells: list[Cell]) -> str:
    lines = [f"| claim | {' | '.join(COLUMNS)} |", "|---" * (1 + len(COLUMNS)) + "|"]
    for key, row in ROWS.items():
        lines.append(f"| {row.claim} | {' | '.join(_words(cell) for cell in cells if cell['row'] == key)} |")
    return "\n".join(lines)


def _words(cell: Cell) -> str:
    if cell["measured"] == UNMEASURED:
        return "not measured"
    page = page_says(cell)
    others = "".join(f", {verdict} ({size})" for verdict, size in cell["others"])
    return f"{cell['measured']} ({sizes(cell['evidence'])}){others}{f'; {page}' if page else ''}"


def _grouped(cells: list[Cell], said: Callable[[Cell], str]) -> str:
    """Return a line for each thing said, and of which techniques of a row it is."""
    groups: dict[tuple[str, str], list[str]] = {}
    for cell in cells:
        groups.setdefault((cell["row"], said(cell)), []).append(cell["column"])
    return "\n".join(f"- **{', '.join(names)}: {ROWS[key].claim}**: {text}" for (key, text), names in groups.items())


def _flip(cell: Cell) -> str:
    others = ", ".join(f"{verdict} with {size}" for verdict, size in cell["others"])
    return f"{cell['measured']} with {sizes(cell['evidence'])}, {others}."


def _difference(cell: Cell) -> str:
    said = f"{cell['measured']}; the page says {cell['published']}"
    said += f", corrected to {cell['corrected']}" if cell["corrected"] != cell["published"] else ""
    reason = REASONS.get((cell["row"], cell["column"])) or REASONS.get((cell["row"], cell["measured"]), "")
    return f"{said}. {reason}".rstrip()


def _figures(cell: Cell) -> str:
    return "; ".join(one["text"] for one in cell["evidence"] if one["decides"])


def _evidence(cells: list[Cell]) -> Iterator[str]:
    """Yield a table for each claim, with a line for each technique."""
    heads = ("technique", "measured", "with", "decided by", "beside it", "predicted for Phi-3-mini")
    for key, row in ROWS.items():
        lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
        lines += [f"| {' | '.join(_line(cell))} |" for cell in cells if cell["row"] == key]
        yield f"**{row.claim[0].upper()}{row.claim[1:]}**"
        yield "\n".join(lines)


def _line(cell: Cell) -> tuple[str, ...]:
    deciding = [one for one in cell["evidence"] if one["decides"]]
    where = dict.fromkeys(f"{one['model']}, {one['device']}{_tokens(one)}" for one in deciding)
    beside = [one["text"] for one in cell["evidence"] if not one["decides"] and one["name"] in BESIDE]
    forecast = cell["predicted"]
    return (
        f"{cell['column']} (`{cell['technique']}`)",
        cell["measured"].replace("-", " "),
        " / ".join(where) or "–",
        _figures(cell) + (f" ({cell['why']})" if cell["why"] else ""),
        "; ".join(beside) or "–",
        f"{forecast['verdict']}: {forecast['text']}" if forecast else "–",
    )


def _tokens(one: Cell) -> str:
    return f", {one['tokens']:,} tokens" if one["tokens"] else ""
