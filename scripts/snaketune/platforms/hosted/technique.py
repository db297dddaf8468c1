"""Typed models of a technique that a hosted service trains: its weights stay there."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from snaketune.config.base import Name, Strict

# Microsoft's table of serverless fine-tuning, as of 2026-02-17; `unlisted: true` sends others too.
PHI_REGIONS = ("eastus", "eastus2", "northcentralus", "southcentralus", "westus", "westus3")
AZURE_ML_MODELS = ("Phi-4", "Phi-4-mini-instruct", "Phi-4-multimodal-instruct")
# The serverless offer of these ended on 2025-08-30.
RETIRED = ("Phi-3-mini", "Phi-3-small", "Phi-3-medium", "Phi-3.5")


class AzureMl(Strict):
    """An Azure ML job of `type: finetuning` without compute; workspace and credential come from the environment."""

    type: Literal["azure-ml"]
    model: Name = Field(description="name in the azureml registry, such as Phi-4-mini-instruct")
    version: str = Field("1", pattern=r"^[A-Za-z0-9._-]+$", description="the model's version in the registry")
    region: str = Field(description="the workspace's region; each model is offered in some regions only")
    unlisted: bool = Field(
        False, description="submit the job even if the model or region isn't in snaketune's list of offers"
    )
    endpoint: Name | None = Field(
        None, description="a serverless endpoint of the tuned model; without it, the model isn't evaluated"
    )
    untuned_endpoint: Name | None = Field(None, description="a serverless endpoint of the base model, for comparison")

    @model_validator(mode="after")
    def _offered(self) -> "AzureMl":
        if self.unlisted or self.model.startswith(RETIRED):
            return self
        if self.model not in AZURE_ML_MODELS:
            raise ValueError(
                f"model {self.model} isn't among those offered ({', '.join(AZURE_ML_MODELS)}); unlisted: true sends it anyway"
            )
        if self.region not in PHI_REGIONS:
            raise ValueError(
                f"region {self.region} doesn't offer {self.model} ({', '.join(PHI_REGIONS)} do); unlisted: true sends it anyway"
            )
        return self


class OpenAiCompatible(Strict):
    """Files, fine_tuning.jobs and chat.completions; address and key come from the environment."""

    type: Literal["openai-compatible"]
    client: Literal["openai", "azure-openai", "azure-ai-projects"] = Field(
        "openai",
        description="openai: OPENAI_API_KEY, OPENAI_BASE_URL; azure-openai: AZURE_OPENAI_ENDPOINT, OPENAI_API_VERSION, AZURE_OPENAI_API_KEY or the credential chain; azure-ai-projects: AZURE_AI_PROJECT_ENDPOINT and the credential chain",
    )
    model: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9._-]+)?$")
    training_type: Literal["Standard", "GlobalStandard", "Developer"] | None = Field(
        None, description="Azure's trainingType, which determines where it trains and the price"
    )
    deployment: Name | None = Field(None, description="deployment of the tuned model; by default the model's name")
    untuned_deployment: Name | None = Field(None, description="deployment of the base model")
    untuned: bool = Field(False, description="also evaluate the base model, for comparison")
    answer_limit: Literal["max_completion_tokens", "max_tokens"] = Field(
        "max_completion_tokens", description="the service's name for the token limit of an answer"
    )


class Limits(Strict):
    """Limits of the service; the SDKs don't check them."""

    least_rows: PositiveInt = Field(10, description="fewest rows of the training file")
    most_rows: PositiveInt | None = None
    most_bytes: PositiveInt = Field(512 * 1024 * 1024, description="largest size of a file")
    most_row_characters: PositiveInt | None = Field(None, description="most characters in all messages of a row")


class Price(Strict):
    """The price in your contract, for the cost estimate of `--dry-run`."""

    per_million_training_tokens: NonNegativeFloat
    currency: str = Field(pattern=r"^[A-Z]{3}$")


class HostedTechnique(Strict):
    """Fine-tuning as a service: the scenario's rows are uploaded, and the name of the tuned model comes back."""

    description: str
    service: Annotated[AzureMl | OpenAiCompatible, Field(discriminator="type")]
    hyperparameters: dict[str, str | int | float] = Field(
        default_factory=dict, description="the service's hyperparameters; epochs come from the experiment"
    )
    limits: Limits = Limits()
    characters_per_token: PositiveFloat = Field(
        4.0, description="rough figure for the model's tokenizer, used for estimates"
    )
    price: Price | None = Field(None, description="without it, only tokens are estimated")
    attempt: PositiveInt = Field(
        1, description="a job is submitted once; raise this to submit it again after a failure"
    )

    @model_validator(mode="after")
    def _known_hyperparameters(self) -> "HostedTechnique":
        if epochs := {"n_epochs", "num_train_epochs"} & self.hyperparameters.keys():
            raise ValueError(
                f"hyperparameters.{min(epochs)}: epochs are set by training.epochs of the experiment; leave it out"
            )
        known = {"batch_size", "learning_rate_multiplier"}
        unknown = self.hyperparameters.keys() - known
        if isinstance(self.service, OpenAiCompatible) and unknown:
            raise ValueError(
                f"hyperparameters.{min(unknown)}: unknown; supervised jobs have {', '.join(sorted(known))}"
            )
        return self

    @property
    def row_model(self) -> str:
        """The model's name in paths and in the summary."""
        return self.service.model.replace("/", "--")

    @property
    def asks(self) -> bool:
        """Return True if the tuned model is evaluated."""
        return self.service.endpoint is not None if isinstance(self.service, AzureMl) else True

    @property
    def asks_untuned(self) -> bool:
        """Return True if the base model is evaluated too."""
        own = self.service
        return self.asks and (own.untuned_endpoint is not None if isinstance(own, AzureMl) else own.untuned)
