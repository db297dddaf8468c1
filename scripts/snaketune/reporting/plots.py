"""Plots of the report, as Vega-Lite specifications that the page draws."""

from typing import Any

Rows = list[dict[str, Any]]
Spec = dict[str, Any]
# Each has a contrast of at least 3 : 1 with a white and with a dark page.
PALETTE = (
    *("#3b7dd8", "#c7690f", "#2c9459", "#cf4742", "#8f66d0", "#1c8f9e", "#d1499b"),
    *("#a0703c", "#7b8a1e", "#6b7d95", "#5f64d9", "#b0841a", "#12897c", "#b84a6b"),
)
MOST_POINTS = 150
# Of a legend: the page has a signal of this name, as many as its plot has room for.
COLUMNS = {"expr": "columns"}


def colours(techniques: list[str]) -> dict[str, str]:
    """Give each technique a colour, the same in every plot."""
    return {name: PALETTE[number % len(PALETTE)] for number, name in enumerate(techniques)}


def coloured(found: Rows, legend: bool = True) -> Spec:
    """Return the encoding of techniques by their colour, with a legend that a click filters by."""
    scale = {"domain": [row["technique"] for row in found], "range": [row["colour"] for row in found]}
    how = {"title": None, "orient": "top", "columns": COLUMNS, "symbolType": "circle", "symbolStrokeWidth": 0}
    return {"field": "technique", "type": "nominal", "scale": scale, "legend": how if legend else None}


def differences(found: Rows, metric: str, higher: bool) -> Spec:
    """Plot each technique's difference from the untuned model with its simultaneous interval."""
    rows = [
        {
            "technique": row["technique"],
            "low": gain.low,
            "value": gain.value,
            "high": gain.high,
            "verdict": gain.verdict,
        }
        for row in found
        for gain in [row["difference"]]
    ]
    better = f"{'right' if higher else 'left'} of 0 is better"
    y = {"field": "technique", "type": "nominal", "sort": None, "title": None, "axis": {"labelLimit": 160}}
    title = [f"difference in {metric} from untuned", f"({better})"]
    x = {"type": "quantitative", "title": title, "axis": {"tickCount": 5}}
    told = [{"field": name, "type": "quantitative", "format": "+.4~r"} for name in ("value", "low", "high")]
    shared = {
        "y": y,
        "color": coloured(found, legend=False),
        "tooltip": [{"field": "technique"}, *told, {"field": "verdict"}],
    }
    return {
        "height": {"step": 26},
        "width": "container",
        "description": f"difference in {metric} of each technique from the untuned model, with its interval",
        "data": {"values": rows},
        "layer": [
            {"mark": {"type": "rule", "color": "var(--muted, #666)", "aria": False}, "encoding": {"x": {"datum": 0}}},
            {
                "mark": {"type": "rule", "strokeWidth": 2},
                "encoding": {"x": {**x, "field": "low"}, "x2": {"field": "high"}, **shared},
            },
            {
                "mark": {"type": "point", "filled": True, "size": 90, "opacity": 1},
                "encoding": {"x": {**x, "field": "value"}, **shared},
            },
        ],
    }


def running_mean(values: list[float], window: int) -> list[float]:
    """Return the mean of each value and up to ``window`` values before it."""
    recent = [values[max(0, i - window) : i + 1] for i in range(len(values))]
    return [sum(part) / len(part) for part in recent]


def loss_curves(found: Rows) -> Spec:
    """Plot each run's training loss (running mean) and validation loss (dots) against training tokens."""
    rows, dots = Rows(), Rows()
    for row in found:
        for seed, curve in row["curves"]:
            of = {"technique": row["technique"], "seed": seed}
            mean = running_mean([entry["loss"] for entry in curve], max(1, len(curve) // 20))
            every = max(1, len(curve) // MOST_POINTS)
            rows += [
                {**of, "tokens": entry["tokens"], "step": entry["step"], "loss": float(f"{loss:.4g}")}
                for number, (entry, loss) in enumerate(zip(curve, mean, strict=True))
                if number % every == 0 or number == len(curve) - 1
            ]
            dots += [
                {
                    **of,
                    "tokens": entry["tokens"],
                    "step": entry["step"],
                    "loss": float(f"{entry['validation_loss']:.4g}"),
                }
                for entry in curve
                if "validation_loss" in entry
            ]
    tips = [{"field": name} for name in ("technique", "seed", "step")]
    tips += [{"field": name, "type": "quantitative", "format": ",.4~r"} for name in ("tokens", "loss")]
    return {
        "height": 300,
        "width": "container",
        "description": "training and validation loss of each run against training tokens",
        "encoding": {
            "x": {"field": "tokens", "type": "quantitative", "title": "training tokens", "axis": {"format": "~s"}},
            "y": {
                "field": "loss",
                "type": "quantitative",
                "title": "loss per completion token (nats)",
                "scale": {"type": "log", "nice": False},
                "axis": {"format": ".2~r", "tickCount": 6},
            },
            "color": coloured(found),
            "detail": {"field": "seed"},
            "opacity": {"condition": {"param": "one", "value": 1}, "value": 0.1},
            "tooltip": tips,
        },
        "layer": [
            {
                "data": {"values": rows},
                "params": [{"name": "one", "select": {"type": "point", "fields": ["technique"]}, "bind": "legend"}],
                "mark": {"type": "line", "strokeWidth": 1.6, "interpolate": "monotone"},
            },
            {"data": {"values": dots}, "mark": {"type": "point", "filled": True, "size": 55}},
        ],
    }


def confusion(labels: list[str]) -> Spec:
    """Plot how often each label was answered for each expected one; the page counts the technique that is chosen."""
    x, y = (
        {"field": field, "type": "nominal", "title": title, "scale": {"domain": labels}}
        for field, title in (("answered", "answered"), ("expected", "expected"))
    )
    return {
        "width": {"step": 36},
        "height": {"step": 26},
        "description": "answers by expected label",
        "data": {"name": "cells"},
        "encoding": {"x": {**x, "axis": {"labelAngle": -40, "labelLimit": 140, "labelOverlap": False}}, "y": y},
        "layer": [
            {
                "mark": {"type": "rect", "cornerRadius": 2},
                "encoding": {
                    "color": {"field": "side", "type": "nominal", "legend": None,
                              "scale": {"domain": ["right", "wrong"], "range": ["#2c9459", "#cf4742"]}},
                    "opacity": {"field": "share", "type": "quantitative", "legend": None,
                                "scale": {"domain": [0, 1], "range": [0.06, 0.85]}},
                    "stroke": {"condition": {"test": "datum.chosen", "value": "var(--text, #222)"}, "value": None},
                    "strokeWidth": {"value": 2},
                    "strokeOpacity": {"value": 1},
                    "tooltip": [{"field": name} for name in ("expected", "answered", "rows")],
                },
            },
            {"mark": {"type": "text", "fontSize": 11}, "encoding": {"text": {"field": "rows"}}},
        ],
    }  # fmt: skip


def timeline(jobs: Rows) -> Spec:
    """Plot when each job of the last run ran, in as many lanes as ran at once."""
    x = {"field": "start", "type": "quantitative", "title": "seconds since the first job started"}
    tips = [{"field": "job"}, {"field": "rule"}, {"field": "seconds", "type": "quantitative", "format": ",.3~r"}]
    return {
        "width": "container",
        "height": {"step": 22},
        "description": "when each job of the last run ran",
        "data": {"values": jobs},
        "mark": {"type": "bar", "height": 16, "cornerRadius": 2},
        "encoding": {
            "x": x,
            "x2": {"field": "end"},
            "y": {"field": "lane", "type": "ordinal", "axis": None},
            "color": {
                "field": "rule",
                "type": "nominal",
                "scale": {"range": list(PALETTE)},
                "sort": None,
                "legend": {"title": None, "orient": "top", "columns": COLUMNS},
            },
            "tooltip": tips,
        },
    }
