"""A hosted service on loopback of each kind, and the scripts that use it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.services.azure_service import azure_serving
from support.services.hosting import SECRET, Hosted, Worker, converted
from support.services.openai_service import OpenAiService, serving

JOB = {"epochs": 2, "seed": 1, "attempt": 1}
OPENAI = {"type": "openai-compatible", "client": "openai", "model": "gpt-test", "training_type": None}
AZURE = {"type": "azure-ml", "model": "Phi-4-mini-instruct", "version": "1", "region": "eastus2", "unlisted": False}


@pytest.fixture
def openai(worker: Worker, tmp_path: Path) -> Iterator[Hosted]:
    converted(tmp_path / "rows")
    recipe = {**JOB, "service": OPENAI, "hyperparameters": {"batch_size": 4}}
    routes = {"look": "GET /files", "create": "POST /fine_tuning/jobs"}
    with serving(OpenAiService({SECRET})) as service:
        environment = {"OPENAI_BASE_URL": f"{service.address}/v1", "OPENAI_API_KEY": SECRET}
        yield Hosted(worker, service, recipe, routes, environment, tmp_path)


@pytest.fixture
def azure(worker: Worker, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosted]:
    converted(tmp_path / "rows")
    recipe = {**JOB, "service": AZURE, "hyperparameters": {"learning_rate": 2e-5}}
    routes = {"look": "GET /jobs/.*", "create": "PUT /jobs/.*"}
    with azure_serving(tmp_path_factory.mktemp("service")) as service:
        yield Hosted(worker, service, recipe, routes, service.environment(), tmp_path)
