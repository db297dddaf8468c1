"""What the published table's properties would be for a model of the size that people tune, by the planning estimates.

The matrix measures properties with a Phi-3, so its recipes name the layers of the larger one.
"""

from itertools import pairwise

from snaketune.config.claims import COLUMNS, REFERENCE
from snaketune.dag.estimates import adapter_parameters, training_memory
from snaketune.dag.recipes import LARGE, LARGE_ROW, Recipes
from snaketune.dag.shape import UNKNOWN

# Of each parameter and token: forward, gradients of inputs, gradients of trained weights (arXiv 2001.08361, section 2.1).
FORWARD, OF_INPUTS, OF_WEIGHTS = 2, 2, 2


def predicted(matrix: Recipes) -> dict[str, dict[str, dict[str, str]]]:
    """Return a verdict with its figures for each row and technique; memory is checked against measurements in docs/scale.md."""
    found = {
        "cost": {name: _cost(matrix, name) for name in COLUMNS.values()},
        "parameters": {name: _parameters(matrix, name) for name in COLUMNS.values()},
        "aggregate": {name: _aggregate(matrix, name) for name in COLUMNS.values()},
        "memory": matrix.expected_memory(),
    }
    found["memory"].pop(REFERENCE, None)
    return found


def _said(shown: bool, text: str) -> dict[str, str]:
    return {"model": LARGE, "verdict": "yes" if shown else "no", "text": text}


def _cost(matrix: Recipes, technique: str) -> dict[str, str]:
    adapter = matrix.property_recipe(technique, 1)["adapter"]
    share = (FORWARD + OF_INPUTS + (0 if adapter else OF_WEIGHTS)) / (FORWARD + OF_INPUTS + OF_WEIGHTS)
    return _said(share < 1, f"operations per token {share:.2g} × {REFERENCE}, counted, not timed")


def _parameters(matrix: Recipes, technique: str) -> dict[str, str]:
    adapter = matrix.property_recipe(technique, 1)["adapter"]
    trained = adapter_parameters(UNKNOWN, adapter) if adapter else UNKNOWN.parameters
    return _said(
        trained < UNKNOWN.parameters,
        f"{trained:,} of {UNKNOWN.parameters:,} ({100 * trained / UNKNOWN.parameters:.3g} %)",
    )


def _aggregate(matrix: Recipes, technique: str) -> dict[str, str]:
    counts = (1, 2, 4)
    held = [
        training_memory(matrix.property_recipe(technique, ranks) | {"micro_batch_rows": 1}, UNKNOWN, LARGE_ROW).states
        for ranks in counts
    ]
    sizes = ", ".join(f"{one / 1e9:.1f}" for one in held)
    return _said(all(b < a for a, b in pairwise(held)), f"{sizes} GB of states of a rank with 1, 2, 4 ranks")
