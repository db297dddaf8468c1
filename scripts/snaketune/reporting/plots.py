"""Plots of the report, as inline SVG."""

import io
import math
from typing import Any

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
from matplotlib.ticker import LogFormatter, NullFormatter

Rows = list[dict[str, Any]]
# Ten dark colours, then ten light ones, so that neighbours in the list are easy to distinguish.
PALETTE = [*matplotlib.color_sequences["tab20"][::2], *matplotlib.color_sequences["tab20"][1::2]]


def colours(techniques: list[str]) -> dict[str, Any]:
    """Give each technique a colour, the same in every plot."""
    return {name: PALETTE[number % len(PALETTE)] for number, name in enumerate(techniques)}


def svg(figure: Any) -> str:
    """Return a figure as inline SVG; equal data gives equal bytes."""
    text = io.StringIO()
    with plt.rc_context({"svg.hashsalt": "snaketune"}):
        figure.savefig(text, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
    plt.close(figure)
    return text.getvalue()[text.getvalue().index("<svg") :]


def running_mean(values: list[float], window: int) -> list[float]:
    """Return the mean of each value and up to ``window`` values before it."""
    recent = [values[max(0, i - window) : i + 1] for i in range(len(values))]
    return [sum(part) / len(part) for part in recent]


def loss_curves(found: Rows) -> str:
    """Plot each technique's training loss (running mean) and validation loss (dots) against training tokens."""
    figure, axes = plt.subplots(figsize=(8, 4))
    for row in found:
        tokens = [entry["tokens"] / 1000 for entry in row["curve"]]
        mean = running_mean([entry["loss"] for entry in row["curve"]], max(1, len(tokens) // 20))
        axes.plot(tokens, mean, color=row["colour"], label=row["technique"], linewidth=1.4)
        dots = [(e["tokens"] / 1000, e["validation_loss"]) for e in row["curve"] if "validation_loss" in e]
        if dots:
            axes.plot(*zip(*dots, strict=True), "o", color=row["colour"], markersize=4)
    axes.set(xlabel="training tokens (thousands)", ylabel="loss per completion token (nats)", yscale="log")
    _plain_numbers(axes)
    axes.grid(alpha=0.25, which="both")
    axes.legend(frameon=False, fontsize=8, bbox_to_anchor=(1, 1), loc="upper left")
    return svg(figure)


def _plain_numbers(axes: Any) -> None:
    """Label a logarithmic y axis with plain numbers instead of powers of ten; every minor tick below one decade."""
    low, high = axes.get_ylim()
    axes.yaxis.set_major_formatter(LogFormatter(labelOnlyBase=False, minor_thresholds=(2, 0.5)))
    short = math.log10(high / low) < 1
    axes.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(2, 0.5)) if short else NullFormatter())


def quality_against_cost(found: Rows, column: str, label: str, scale: float, metric: str, untuned: float) -> str:
    """Plot quality with its interval against the cost in ``column``, one point per technique."""
    figure, axes = plt.subplots(figsize=(4.6, 3.6))
    for row in found:
        value, cost = row["value"], row[column] / scale
        ends = [[max(0, value - row["ci_low"])], [max(0, row["ci_high"] - value)]]
        axes.errorbar(cost, value, yerr=ends, fmt="o", color=row["colour"], capsize=3, label=row["technique"])
        if len(found) <= 8:
            axes.annotate(row["technique"], (cost, value), xytext=(5, 4), textcoords="offset points", fontsize=7)
    axes.axhline(untuned, color="gray", linestyle="--", linewidth=1)
    place: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "ha": "right", "va": "bottom"}
    axes.annotate("untuned", (1, untuned), fontsize=7, color="gray", **place)
    axes.set(xlabel=label, ylabel=metric)
    if metric == "perplexity":  # a difference of perplexities depends on their size, a ratio does not
        axes.set(yscale="log")
        _plain_numbers(axes)
    if len(found) > 8:
        axes.legend(frameon=False, fontsize=6.5, bbox_to_anchor=(1, 1), loc="upper left")
    axes.margins(x=0.2)
    axes.grid(alpha=0.25)
    return svg(figure)


def differences(found: Rows, metric: str, higher: bool) -> str:
    """Plot each technique's difference from the untuned model with its simultaneous interval."""
    figure, axes = plt.subplots(figsize=(8, 0.5 + 0.35 * len(found)))
    for position, row in enumerate(reversed(found)):
        gain = row["difference"]
        ends = [[max(0, gain.value - gain.low)], [max(0, gain.high - gain.value)]]
        axes.errorbar(gain.value, position, xerr=ends, fmt="o", color=row["colour"], capsize=3)
    axes.axvline(0, color="gray", linewidth=1)
    axes.set_yticks(range(len(found)), [row["technique"] for row in reversed(found)])
    better = "right of 0 is better" if higher else "left of 0 is better"
    axes.set(xlabel=f"difference in {metric} from the untuned model ({better})")
    axes.grid(alpha=0.25, axis="x")
    return svg(figure)
