"""Check what hosted services are to train before any job starts, and list the parameters of each job."""

import sys
from typing import Any

from snaketune.config.matrix import Matrix
from snaketune.core.errors import UserError
from snaketune.platforms.hosted.technique import HostedTechnique


def techniques(matrix: Matrix) -> dict[str, HostedTechnique]:
    """Return the hosted techniques of an experiment."""
    return {name: found for name, found in matrix.hosted.items() if isinstance(found, HostedTechnique)}


def check(matrix: Matrix) -> None:
    """Raise a UserError if a service couldn't train an experiment as it is configured."""
    for name, scenario in matrix.scenarios.items():
        if matrix.hosted and not scenario.has_messages:
            raise UserError(
                f"{next(iter(matrix.hosted))}: hosted services take chats, but {name} is task: {scenario.task}; leave one of the two out"
            )
    for name, technique in techniques(matrix).items():
        if technique.service.retired:
            print(
                f"warning: config/techniques/{name}.yaml: {technique.service.model} is retired from serverless fine-tuning, so expect a refusal; Phi-4-mini-instruct is offered",
                file=sys.stderr,
            )


def training_params(matrix: Matrix, technique: str, seed: int) -> dict[str, Any]:
    """Return what a hosted job is asked to do: not where it runs or who pays."""
    found = techniques(matrix)[technique]
    answering = {"endpoint", "untuned_endpoint", "deployment", "untuned_deployment", "untuned", "answer_limit"}
    return {
        **found.model_dump(include={"hyperparameters", "attempt"}),
        # Consent to send what our list of offers lacks must not start another job either.
        "service": found.service.model_dump(exclude={*answering, "unlisted"}),
        "epochs": matrix.experiment.training.epochs,
        "seed": seed,
    }


def price_params(matrix: Matrix, technique: str) -> dict[str, Any]:
    """Return what only the estimate needs: another price must not start another job."""
    return techniques(matrix)[technique].model_dump(include={"price", "characters_per_token"})


def asking_params(matrix: Matrix, scenario: str, technique: str) -> dict[str, Any]:
    """Return how a hosted model is asked."""
    service = techniques(matrix)[technique].service.model_dump(exclude={"untuned"})
    return {"service": service, "max_new_tokens": matrix.scenarios[scenario].max_new_tokens}
