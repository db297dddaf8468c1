"""Copy a model from the Hugging Face hub, or from a local directory, into the layout of the workflow."""

import shutil
from pathlib import Path
from typing import Any

import snaketune  # noqa: F401 (first: the hub's library reads, when it is imported, the switches that it sets)

# isort: split
from httpx2 import HTTPError
from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from snaketune.core import cli, errors, files, layout, manifest
from snaketune.core.errors import TransientError, UserError

PATTERNS = [
    "*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json", "tokenizer*",
    "special_tokens_map.json", "added_tokens.json", "chat_template.jinja", "*.model", "vocab.json", "merges.txt",
]  # fmt: skip


def download(hub: str, revision: str) -> Path:
    """Download a pinned snapshot, without any code, into the hub's cache."""
    try:
        return Path(snapshot_download(hub, revision=revision, allow_patterns=PATTERNS))
    except GatedRepoError:
        raise UserError(f"{hub} is gated: accept its licence on the hub and set HF_TOKEN") from None
    except RevisionNotFoundError:
        raise UserError(
            f"{hub} has no revision {revision}: copy the 40-digit commit from its page on the hub"
        ) from None
    except RepositoryNotFoundError:
        raise UserError(f"the hub has no model {hub} (or it is private: set HF_TOKEN)") from None
    except (HfHubHTTPError, HTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0][:200]
        response = getattr(error.__cause__, "response", None) or getattr(error, "response", None)
        refused = response is not None and response.status_code < 500
        raise (UserError if refused or isinstance(error, ValueError) else TransientError)(
            f"{hub} at {revision[:12]} can't be downloaded ({reason}): check the network, or HF_ENDPOINT for a mirror, or download it elsewhere and give `path:`"
        ) from None


def copy_weights(source: Path, out: Path) -> None:
    """Copy the weights of one or more safetensors files into one file; no other format is read."""
    index, whole = source / "model.safetensors.index.json", source / "model.safetensors"
    if index.exists():
        shards = [source / name for name in sorted(set(files.read_json(index)["weight_map"].values()))]
    else:
        shards = [whole] if whole.exists() else sorted(source.glob("*.safetensors"))
    if missing := [shard.name for shard in shards if not shard.exists()]:
        raise UserError(f"{source}: {index.name} names {missing[0]}, which isn't there; download the model again")
    if not shards:
        raise UserError(
            f"{source}: no .safetensors file; other formats (.bin, .pt) run code when they are read and aren't accepted: convert the model first"
        )
    files.need_space(out, sum(shard.stat().st_size for shard in shards), "the base model")
    with files.written_whole(out / "model.safetensors") as aside:
        if len(shards) == 1:
            shutil.copyfile(shards[0], aside)
        else:
            from safetensors.torch import load_file, save_file

            save_file(
                {name: tensor for shard in shards for name, tensor in load_file(shard).items()},
                aside,
                metadata={"format": "pt"},
            )


def copy_tokenizer(source: Path, out: Path) -> None:
    """Save tokenizer.json, and tokenizer_config.json with the chat template inside."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False, local_files_only=True)
    tokenizer.save_pretrained(out)
    config: dict[str, Any] = files.read_json(out / "tokenizer_config.json")
    template = out / "chat_template.jinja"
    if template.exists():
        config["chat_template"] = template.read_text(encoding="utf-8")
        template.unlink()
    files.write_json(out / "tokenizer_config.json", config)
    for path in out.iterdir():
        if path.name not in layout.MODEL_FILES:
            path.unlink()


def main() -> None:
    arguments = cli.job_parser(__doc__, "hub and revision, or path; source_digests", "--output-directory").parse_args()
    recipe, out = arguments.recipe, arguments.output_directory

    source = Path(recipe["path"]) if recipe["path"] else download(recipe["hub"] or "", recipe["revision"] or "")
    manifest.prove_sources(recipe["source_digests"])
    out.mkdir(parents=True, exist_ok=True)
    copy_weights(source, out)
    copy_tokenizer(source, out)
    shutil.copyfile(source / "config.json", out / "config.json")
    if (source / "generation_config.json").exists():
        shutil.copyfile(source / "generation_config.json", out / "generation_config.json")
    else:
        files.write_json(out / "generation_config.json", {})
    inputs = layout.model_files(source) if recipe["path"] else []
    manifest.record(out, recipe, inputs, [out / name for name in layout.MODEL_FILES])


if __name__ == "__main__":
    errors.run(main)
