"""Recommend the precision of a run to ship: the fastest one within its parity budget; not timed, the smallest."""

from typing import Any

from snaketune.core.precisions import backend_of


def within_budget(precisions: list[str], parity: dict[str, Any]) -> list[str]:
    """Return the precisions whose every conversion step is within its budget."""
    failed = {step.removeprefix("onnx-fp32-") for step in parity["over_budget_hops"] + parity["without_budget"]}
    if "adapter-shipped" in failed:
        # The run's other form than fp32 is the adapter beside its base.
        failed |= set(precisions) - {"fp32"}
    # No export can be closer to the trained model than the form that it was exported from.
    parent_failed = {"adapter-merged", "merged-onnx-fp32"} & set(parity["over_budget_hops"])
    return [name for name in precisions if name not in failed and not parent_failed]


def left_out(precisions: list[str], kept: list[str], parity: dict[str, Any]) -> list[str]:
    """Return of each precision that isn't within its budget which figure is over it and by how much, or that it has none."""
    found = []
    for name in [name for name in precisions if name not in kept]:
        steps = (f"onnx-fp32-{name}", "adapter-shipped", "adapter-merged", "merged-onnx-fp32")
        over = [with_interval(one, parity) for one in parity["over_budget"] if one.split(": ")[0] in steps]
        reason = f"is over its parity budget ({'; '.join(over)})" if over else "has no parity budget"
        found.append(f"{name} {reason}")
    if found and kept == ["fp32"]:
        other = "another precision" if "auto" in precisions else "another precision, such as `auto`"
        found.append(f"Next: add {other}, or publish the trained weights, which no export changed")
    return found


def with_interval(message: str, parity: dict[str, Any]) -> str:
    """Return `STEP: FIGURE is VALUE, expected …` without its step, with the figure's interval behind its value."""
    step, _, told = message.partition(": ")
    name = told.split(" ")[0]
    if not (ends := parity["hops"].get(step, {}).get(f"{name}_ci")):
        return told
    return told.replace(",", f" [{ends[0]:+.3g}, {ends[1]:+.3g}],", 1)


def smallest_precision(precisions: list[str], parity: dict[str, Any], size: dict[str, float]) -> dict[str, Any]:
    """Return the smallest precision within its parity budget, as ``recommend_precision`` returns the fastest.

    Args:
        size: bytes of each precision's files.
    """
    kept = within_budget(precisions, parity)
    warnings = left_out(precisions, kept, parity)
    if not kept:
        return {"precision": None, "reason": "no precision is within its parity budget", "warnings": warnings}
    chosen = min(kept, key=lambda name: size[name])
    which = "the only one" if len(kept) == 1 < len(precisions) else "the smallest"
    why = f"{which} within its parity budget; its speed was not compared"
    return {"precision": chosen, "reason": why, "warnings": warnings}


def recommend_precision(precisions: list[str], parity: dict[str, Any], benchmark: dict[str, Any]) -> dict[str, Any]:
    """Return the fastest precision whose every conversion step is within budget.

    Rates are those of the smallest batch and the longest prompt. Precisions whose spread overlaps that of the
    fastest one count as equally fast; of these the smallest file wins.

    Returns:
        ``precision`` (None if none is within budget), ``reason``, and ``warnings`` as sentences.
    """
    systems = benchmark["systems"]
    shapes = [(shape["batch"], -shape["prompt_tokens"]) for system in systems.values() for shape in system["shapes"]]
    if not shapes:
        return {"precision": None, "reason": "no measured shape fits into the model's context", "warnings": []}
    batch, prompt = min(shapes)[0], -min(shapes)[1]
    where = f"batch {batch}, prompt of {prompt} tokens"
    # Of each system, the median, least and most tokens/s.
    rates = {
        name: shape["decode_tokens_per_second"]
        for name, system in systems.items()
        for shape in system["shapes"]
        if (shape["batch"], shape["prompt_tokens"]) == (batch, prompt)
    }
    rate = {name: rates[backend_of(name)]["median"] for name in precisions}
    size = {name: systems[backend_of(name)]["file_bytes"] for name in precisions}
    warnings = [
        f"{name} is smaller than fp32 ({size[name] / size['fp32']:.2f} of its bytes), but decodes at {rate[name] / rate['fp32']:.2f}× its rate ({where})"
        for name in precisions
        if size[name] < size["fp32"] and rate[name] < rate["fp32"]
    ]
    kept = within_budget(precisions, parity)
    warnings = left_out(precisions, kept, parity) + warnings
    if not kept:
        return {"precision": None, "reason": "no precision is within its parity budget", "warnings": warnings}
    fastest = rates[backend_of(max(kept, key=lambda name: rate[name]))]
    equals = [name for name in kept if rates[backend_of(name)]["most"] >= fastest["least"]]
    chosen = min(equals, key=lambda name: size[name])
    others = ", ".join(name for name in equals if name != chosen)
    why = f"as fast as {others} within the spread, with the smaller file" if others else "none decodes faster"
    against = f"{rate[chosen] / rates['torch-fp32']['median']:.1f}× torch fp32; {where}"
    return {"precision": chosen, "reason": f"within its parity budget, and {why} ({against})", "warnings": warnings}
