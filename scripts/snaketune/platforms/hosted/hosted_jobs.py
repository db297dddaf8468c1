"""What of an experiment hosted services train: checked before any job starts, and the recipe of each job."""

import sys
from typing import Any

from snaketune.core.errors import UserError


def check(matrix: Any) -> None:
    """Raise a UserError where a service couldn't train an experiment as it is configured."""
    models, here = matrix.experiment.models, list(matrix.techniques)
    if here and not models:
        raise UserError(f"models: []: {here[0]} is trained here and needs one")
    if models and not here:
        raise UserError(
            f"models: {', '.join(models)}: every technique is hosted and names its own model: write models: []"
        )
    for name, scenario in matrix.scenarios.items():
        if matrix.hosted and scenario.task == "language-modeling":
            raise UserError(
                f"{next(iter(matrix.hosted))}: hosted services take chats, but {name} is task: language-modeling; leave one of the two out"
            )
    for name, technique in matrix.hosted.items():
        if technique.service.retired:
            print(
                f"warning: config/techniques/{name}.yaml: {technique.service.model} is retired from serverless fine-tuning, so expect a refusal; Phi-4-mini-instruct is offered",
                file=sys.stderr,
            )


def cells(matrix: Any) -> list[dict[str, Any]]:
    """Every run at a service, and whether its model is asked, and the untuned one beside it."""
    return [
        {
            "cell": [one.row_model, scenario, name, seed],
            "asks": one.service.asks,
            "asks_untuned": one.service.asks and one.service.asks_untuned,
        }
        for scenario in matrix.experiment.scenarios
        for name, one in matrix.hosted.items()
        for seed in matrix.experiment.seeds
    ]


def hosted_recipe(matrix: Any, technique: str, seed: int) -> dict[str, Any]:
    """What a hosted job is asked to do: nothing of where it is or who pays."""
    found = matrix.hosted[technique]
    answering = {"endpoint", "untuned_endpoint", "deployment", "untuned_deployment", "untuned", "answer_limit"}
    return {
        **found.model_dump(include={"hyperparameters", "attempt"}),
        # Leave to send what our list of offers lacks makes no other job either.
        "service": found.service.model_dump(exclude={*answering, "unlisted"}),
        "epochs": matrix.experiment.training.epochs,
        "seed": seed,
    }


def price(matrix: Any, technique: str) -> dict[str, Any]:
    """What only an estimate needs: another price starts no other job."""
    found: dict[str, Any] = matrix.hosted[technique].model_dump(include={"price", "characters_per_token"})
    return found


def asking_recipe(matrix: Any, scenario: str, technique: str) -> dict[str, Any]:
    """How a hosted model is asked."""
    service = matrix.hosted[technique].service.model_dump(exclude={"untuned"})
    return {"service": service, "max_new_tokens": matrix.scenarios[scenario].max_new_tokens}
