"""Check what hosted services are to train before any job starts."""

import sys

from snaketune.config.matrix import Matrix
from snaketune.core.errors import UserError
from snaketune.platforms.hosted.technique import RETIRED, AzureMl, HostedTechnique


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
        if isinstance(technique.service, AzureMl) and technique.service.model.startswith(RETIRED):
            print(
                f"warning: config/techniques/{name}.yaml: {technique.service.model} is retired from serverless fine-tuning, so expect a refusal; Phi-4-mini-instruct is offered",
                file=sys.stderr,
            )
