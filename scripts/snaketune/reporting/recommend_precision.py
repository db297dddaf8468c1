"""Recommend the precision of a run to ship: the fastest one within its parity budget."""

from typing import Any

from snaketune.core.precisions import backend_of


def decode_rates(benchmark: dict[str, Any], batch: int, prompt: int) -> dict[str, float]:
    """Return each system's median decode rate, in tokens/s, at one batch size and prompt length."""
    return {
        name: shape["decode_tokens_per_second"]["median"]
        for name, system in benchmark["systems"].items()
        for shape in system["shapes"]
        if (shape["batch"], shape["prompt_tokens"]) == (batch, prompt)
    }


def recommend_precision(precisions: list[str], parity: dict[str, Any], benchmark: dict[str, Any]) -> dict[str, Any]:
    """Return the fastest precision whose every conversion step is within budget.

    Rates are those of the smallest batch and the longest prompt. Precisions whose spread overlaps that of the
    fastest one count as equally fast; of these the smallest file wins.

    Returns:
        ``precision`` (None if none is within budget), ``reason``, and ``warnings`` as sentences.
    """
    shapes = [
        (shape["batch"], -shape["prompt_tokens"])
        for system in benchmark["systems"].values()
        for shape in system["shapes"]
    ]
    if not shapes:
        return {"precision": None, "reason": "no shape fits into the model's context", "warnings": []}
    batch, prompt = min(shapes)[0], -min(shapes)[1]
    rates = decode_rates(benchmark, batch, prompt)
    sizes = {name: system["file_bytes"] for name, system in benchmark["systems"].items()}
    failed = {step.removeprefix("onnx-fp32-") for step in parity["over_budget_hops"] + parity["without_budget"]}
    # No export can be closer to the trained model than the form that it was exported from.
    parent_failed = {"adapter-merged", "merged-onnx-fp32"} & set(parity["over_budget_hops"])
    kept = [] if parent_failed else [name for name in precisions if name not in failed]
    where = f"batch {batch}, prompt of {prompt} tokens"
    if not kept:
        return {
            "precision": None,
            "reason": "no precision is within its parity budget",
            "warnings": slower(precisions, rates, sizes, where),
        }
    fastest = max(kept, key=lambda name: rates[backend_of(name)])
    equals = [
        name for name in kept if not clearly_faster(benchmark, backend_of(fastest), backend_of(name), batch, prompt)
    ]
    chosen = min(equals, key=lambda name: sizes[backend_of(name)])
    others = [name for name in equals if name != chosen]
    return {
        "precision": chosen,
        "reason": f"within its parity budget, and {'none decodes faster' if not others else 'as fast as ' + ', '.join(others) + ' within the spread, with the smaller file'} ({rates[backend_of(chosen)] / rates['torch-fp32']:.1f}× torch fp32; {where})",
        "warnings": slower(precisions, rates, sizes, where),
    }


def clearly_faster(benchmark: dict[str, Any], fast: str, slow: str, batch: int, prompt: int) -> bool:
    """Tell if the slowest round of one system beats the fastest round of the other."""
    one, other = (
        next(
            shape["decode_tokens_per_second"]
            for shape in benchmark["systems"][name]["shapes"]
            if (shape["batch"], shape["prompt_tokens"]) == (batch, prompt)
        )
        for name in (fast, slow)
    )
    return one["least"] > other["most"]


def slower(precisions: list[str], rates: dict[str, float], sizes: dict[str, int], where: str) -> list[str]:
    """Return a sentence for each precision that decodes slower than fp32 although its file is smaller."""
    full = backend_of("fp32")
    return [
        f"{name} is smaller than fp32 ({sizes[backend_of(name)] / sizes[full]:.2f} of its bytes), but decodes at {rates[backend_of(name)] / rates[full]:.2f}× its rate ({where})"
        for name in precisions
        if sizes[backend_of(name)] < sizes[full] and rates[backend_of(name)] < rates[full]
    ]
