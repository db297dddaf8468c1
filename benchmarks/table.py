"""Write the speed tables of README.md and docs/speed.md between their markers, from what the benchmarks measured."""

import argparse
import sys
from pathlib import Path
from typing import Any

import turns  # first: it puts the workflow's modules on the path

# isort: split
sys.path.append(str(turns.ROOT))

from tools.write_figures import write

from snaketune.core import errors, files


def training(results: dict[str, Any]) -> list[str]:
    """Return a table with a line for each model and kind of rows."""
    lines = [
        "| training | rows | ours, tokens per CPU second | speed-up over hand-tuned TRL | the same in fp32 | over TRL's defaults |",
        "|---|---|---|---|---|---|",
    ]
    for size, one in results["sizes"].items():
        turns.refuse_unequal(one["differences"])
        for kind, found in one["kinds"].items():
            best = found["best"]["ours"]
            rate = found["tokens_per_cpu_second"][best]["median"] if best else None
            defaults = "did not end" if "trl-defaults" in one["left_out"] else turns.shown(found.get("over_defaults"))
            ratios = [turns.shown(found.get(name)) for name in ("over_tuned", "over_tuned_fp32")]
            fastest = f"{rate:,.0f} ({best.removeprefix('ours-')})" if rate else "–"
            lines.append(f"| {size} | {kind} | {fastest} | {' | '.join(ratios)} | {defaults} |")
    worst = max(max(one["differences"].values()) for one in results["sizes"].values())
    least = min(one["rounds"] for one in results["sizes"].values())
    lines += [
        "",
        f"LoRA r 8 on every linear layer; medians of at least {least} interleaved rounds, with minimum and maximum. On equal batches in fp32, losses differ by at most {worst:.0e}.",
    ]
    for size, one in results["sizes"].items():
        lines += [f"{size}: {reason}." for reason in one["left_out"].values()]
    return lines


def costs(results: dict[str, Any]) -> list[str]:
    """Return a table of what DoRA costs over LoRA, and of how much of `linear`'s peak the loop reaches."""
    lines = [
        "| training | rows | share of `linear`'s peak, fp32 | bf16 | DoRA's time over LoRA's | its bytes kept for backward, over LoRA's |",
        "|---|---|---|---|---|---|",
    ]
    for size, one in results["sizes"].items():
        for kind, found in one["costs"].items():
            shares = [turns.shown(found.get(f"ours-{precision}_share_of_peak")) for precision in ("fp32", "bf16")]
            kept = found.get("dora_saved_bytes_over_lora")
            time = turns.shown(one["kinds"][kind].get("dora_time_over_lora"))
            lines.append(f"| {size} | {kind} | {' | '.join(shares)} | {time} | {f'{kept:.2f}' if kept else '–'} |")
    return lines


def parts(sizes: dict[str, Any]) -> list[str]:
    """Return a table of what the parts of a training step take, for each model and technique."""
    of = {f"{size}, {name}": each["techniques"][name] for size, each in sizes.items() for name in ("lora", "dora")}
    first = next(iter(of.values()))["parts"]
    lines = [f"| CPU milliseconds of a step | {' | '.join(of)} |", "|---" * (len(of) + 1) + "|"]
    for part in sorted(first, key=lambda part: -first[part]):
        shown = (f"{one['parts'][part]:,.0f} ({one['parts'][part] / one['milliseconds']:.0%})" for one in of.values())
        lines.append(f"| {part} | {' | '.join(shown)} |")
    totals = {
        "together": [f"{one['milliseconds']:,.0f}" for one in of.values()],
        "tokens computed": [f"{one['computed_tokens']}" for one in of.values()],
        "share of `linear`'s peak": [f"{one['share_of_peak']:.2f}" for one in of.values()],
    }
    return [*lines, *(f"| {name} | {' | '.join(values)} |" for name, values in totals.items())]


def workflow(found: dict[str, Any]) -> list[str]:
    """Say how many tokens are computed for the built-in scenarios, and what a call with nothing to do takes."""
    of, call = found["computed_over_trained"], found["no_op"]
    named = ", ".join(
        f"`{name}` {one['shared']:.2f} (padded {one['padded']:.2f}, all rows in one batch {one['least']:.2f})"
        for name, one in of.items()
    )
    return [
        f"Tokens computed over tokens trained, SmolLM2, batches of 8: {named}. Finding the finished default experiment up to date takes {call['seconds']:.1f} CPU seconds; trivial rules over the same files take {call['trivial_seconds']:.1f} (`benchmarks/workflow.json`, at {found['commit']})."
    ]


def matrix(found: dict[str, Any]) -> list[str]:
    """Say what the default matrix takes beside a shell loop of other programs."""
    return [
        f"{', '.join(found['techniques'])} of the default experiment, from base and tokens to exports and evaluations: {found['seconds']:,.0f} s; a shell loop of TRL, optimum-cli and ONNX Runtime's programs: {found['peers_seconds']:,.0f} s; ratio {found['ratio']:.2f} (`benchmarks/peers.json`, at {found['commit']})."
    ]


def inference(found: dict[str, Any]) -> list[str]:
    """Return tables of one model's forms, and of the ratios that have goals."""
    lines = ["| form | prefill, tokens/s | decode, tokens/s | MB |", "|---|---|---|---|"]
    for name, one in found["systems"].items():
        rates = [one[f"{kind}_tokens_per_second"]["median"] for kind in ("prefill", "decode")]
        lines.append(f"| {name} | {rates[0]:,.0f} | {rates[1]:,.0f} | {one['file_bytes'] / 1e6:,.0f} |")
    lines += ["", "| figure | ratio | goal | reached |", "|---|---|---|---|"]
    for goal in found["goals"]:
        figure = f"{goal['figure']} of {goal['system']} over {goal['over']}"
        reached = "yes" if goal["reached"] else f"**no**, {goal['ratio']['median']:.3f}"
        lines.append(f"| {figure} | {turns.shown(goal['ratio'])} | {goal['goal']} | {reached} |")
    return lines


def source(name: str, found: dict[str, Any]) -> str:
    """Say what a file of figures was measured on."""
    hardware, versions = found["hardware"], found["versions"]
    packages = ", ".join(f"{package} {version}" for package, version in versions.items())
    instructions = ", ".join(hardware["instructions"]) or "no vector instructions of note"
    return f"`benchmarks/{name}`, at {found['commit']}: {hardware['processor']} ({instructions}), threads: {found['threads']}; {packages}."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    pages = [turns.ROOT / "README.md", turns.ROOT / "docs/speed.md"]
    parser.add_argument("--pages", type=Path, nargs="+", default=pages)
    parser.add_argument("--benchmarks", type=Path, default=turns.ROOT / "benchmarks")
    arguments = parser.parse_args()
    figures: dict[str, list[str]] = {}
    if (path := arguments.benchmarks / "training.json").exists():
        results = files.read_json(path)
        figures["speed"] = [*training(results), "", source(path.name, list(results["sizes"].values())[-1])]
        figures["speed-costs"] = costs(results)
    for path in sorted(arguments.benchmarks.glob("exports*.json")):
        found = files.read_json(path)
        if "commit" in found:
            figures[f"speed-{path.stem}"] = [*inference(found), "", source(path.name, found)]
    if (path := arguments.benchmarks / "step.json").exists():
        sizes = files.read_json(path)["sizes"]
        figures["speed-step"] = [*parts(sizes), "", source(path.name, list(sizes.values())[-1])]
    if (path := arguments.benchmarks / "workflow.json").exists():
        figures["speed-workflow"] = workflow(files.read_json(path))
    if (path := arguments.benchmarks / "peers.json").exists():
        figures["speed-peers"] = matrix(files.read_json(path))
    if not figures:
        raise errors.UserError(f"{arguments.benchmarks}: nothing was measured: run `make bench`")
    write(arguments.pages, {name: "\n".join(lines) for name, lines in figures.items()})


if __name__ == "__main__":
    errors.run(main)
