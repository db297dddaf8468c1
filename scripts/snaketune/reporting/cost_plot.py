"""The plot of the first screen, as a Vega-Lite specification: quality against the cost that the reader chooses."""

from snaketune.reporting.numbers import MIB, measured
from snaketune.reporting.plots import Rows, Spec, coloured

# What a technique costs, as the page offers it: a column of its rows, and the title of the axis.
COSTS = {
    "memory": "peak memory of the largest rank (MiB)",
    "state": "weights + gradients + optimizer of a rank (MiB)",
    "seconds": "training time (s)",
    "size": "size of adapter or weights (MiB)",
}
SHORT = {"memory": "peak memory", "state": "model state", "seconds": "training time", "size": "stored size"}


def cost_rows(found: Rows) -> Rows:
    """Return a point of each technique: its quality with interval, and every cost that was measured."""
    rows = []
    for row in found:
        held = row["state"].values()
        costs = {
            "memory": row["peak_memory_bytes"] and row["peak_memory_bytes"] / MIB,
            "state": sum(held) / MIB if held and None not in held else None,
            "seconds": row["seconds"],
            "size": row["artifact_bytes"] / MIB,
        }
        ends = f"{measured(row['value'])} [{measured(row['ci_low'])}, {measured(row['ci_high'])}]"
        kept = {name: row[name] for name in ("technique", "value", "ci_low", "ci_high")}
        rows.append({**kept, **costs, "told": ends})
    return rows


def scale_of(metric: str) -> Spec:
    """Return the scale of a metric: of perplexities, ratios matter and not differences."""
    return {"type": "log", "nice": True} if metric == "perplexity" else {"zero": False, "nice": True}


def quality_against_cost(found: Rows, metric: str, untuned: dict[str, float], rows: Rows) -> Spec:
    """Plot quality with its interval against a cost, which the page sets; beside it the untuned model's."""
    selected = {"condition": {"param": "one", "value": 1}, "value": 0.12}
    tips = [{"field": "technique"}, {"field": "told", "title": metric}]
    tips += [{"field": name, "title": SHORT[name], "type": "quantitative", "format": ",.3~r"} for name in COSTS]
    shared = {"color": coloured(found, legend=False), "opacity": selected}
    axis = {"field": "value", "type": "quantitative", "title": metric, "scale": scale_of(metric)}
    line, band = ({"y": {**axis, "field": name}} for name in ("value", "ci_low"))
    return {
        "height": 400,
        "width": "container",
        "description": f"{metric} of each technique with its interval, against its cost",
        "layer": [
            {
                "data": {"values": [untuned]},
                "mark": {"type": "rect", "opacity": 0.12, "color": "var(--muted, #666)"},
                "encoding": {**band, "y2": {"field": "ci_high"}},
            },
            {
                "data": {"values": [untuned]},
                "mark": {"type": "rule", "strokeDash": [5, 4], "color": "var(--muted, #666)"},
                "encoding": line,
            },
            {
                "data": {"values": [untuned]},
                "mark": {"type": "text", "align": "right", "baseline": "top", "dx": -4, "dy": 4, "text": "untuned"},
                "encoding": {**line, "x": {"value": "width"}, "color": {"value": "var(--muted, #666)"}},
            },
            {
                "name": "ends",
                "data": {"values": rows},
                "mark": {"type": "rule", "strokeWidth": 1.6},
                "encoding": {"x": {}, "y": {**axis, "field": "ci_low"}, "y2": {"field": "ci_high"}, **shared},
            },
            {
                "name": "points",
                "data": {"values": rows},
                "params": [{"name": "one", "select": {"type": "point", "fields": ["technique"], "on": "click"}}],
                "mark": {"type": "point", "filled": True, "size": 110, "opacity": 1},
                "encoding": {"x": {}, "y": axis, "tooltip": tips, **shared},
            },
            {
                "name": "labels",
                "data": {"values": rows},
                "mark": {"type": "text", "fontWeight": 600, "fontSize": 12},
                "encoding": {"x": {}, "y": axis, "text": {"field": "technique"}, **shared},
            },
        ],
    }
