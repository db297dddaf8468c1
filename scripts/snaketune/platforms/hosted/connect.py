"""The client of a hosted service, chosen by its type."""

from typing import Any

from snaketune.platforms.hosted.service import Service


def connect(service: dict[str, Any]) -> Service:
    """Return the client of a service; only its own SDK is imported.

    Raises:
        UserError: an environment variable for the endpoint or the credential is missing.
    """
    if service["type"] == "azure-ml":
        from snaketune.platforms.hosted.azure_ml_service import AzureMlService

        return AzureMlService(service)
    from snaketune.platforms.hosted.openai_service import OpenAiService

    return OpenAiService(service)
