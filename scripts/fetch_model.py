"""Copy a model from the Hugging Face Hub, or from a local directory, into the layout of the workflow."""

import shutil
from pathlib import Path
from typing import Any

import snaketune  # noqa: F401 (first: the hub's library reads, when it is imported, the switches that it sets)

# isort: split
import transformers
from jinja2 import TemplateError
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase

from snaketune.core import cli, errors, files, layout, manifest
from snaketune.core.errors import UserError
from snaketune.core.quantized import refuse_quantized
from snaketune.data.hub_download import download
from snaketune.data.settled_template import settled_template
from snaketune.training.gguf_model import convert, locate


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


def copy_tokenizer(source: Path, out: Path, architecture: PreTrainedConfig) -> PreTrainedTokenizerBase:
    """Save tokenizer.json, and tokenizer_config.json with the chat template inside; return the tokenizer.

    Raises:
        UserError: the chat template can't be used.
    """
    tokenizer = AutoTokenizer.from_pretrained(
        source, config=architecture, trust_remote_code=False, local_files_only=True
    )
    try:
        tokenizer.chat_template = settled_template(tokenizer)
    except ValueError as fault:
        raise UserError(f"{source / 'tokenizer_config.json'}: {fault}") from None
    tokenizer.save_pretrained(out, save_jinja_files=False)
    files.write_json(out / "tokenizer_config.json", files.read_json(out / "tokenizer_config.json"))
    for path in out.iterdir():
        if path.name not in layout.MODEL_FILES:
            path.unlink()
    return tokenizer


def turn_ends(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the tokens with which the chat template ends an answer: the last one, and one before another question."""
    if not tokenizer.chat_template:
        return []
    # In Gemma's tokenizer, runs of white space are added tokens too.
    added = {number for number, token in tokenizer.added_tokens_decoder.items() if token.content.strip()}
    chat = [{"role": "user", "content": "question"}, {"role": "assistant", "content": "xyzzy"}]
    found = []
    for messages in (chat, [*chat, chat[0]]):
        try:
            written = str(tokenizer.apply_chat_template(messages, tokenize=False))
        except (TemplateError, TypeError, ValueError):
            continue  # The first row tells why.
        after = tokenizer(written.partition("xyzzy")[2], add_special_tokens=False)["input_ids"]
        found += [token for token in after if token in added][:1]
    return found


def settle_tokens(source: Path, out: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """Write generation_config.json with every end token, and to it and config.json only token ids that the model has.

    The list of end tokens is made here, once: evaluation, merged model, exports and package all stop
    at ``eos_token_id`` of generation_config.json. It holds those that the files declare, the
    tokenizer's own, and those of the chat template, which the files of a base model with a chat
    template often lack.
    """
    given = source / "generation_config.json"
    generation = files.read_json(given) if given.exists() else {}
    config = files.read_json(out / "config.json")
    size = config.get("vocab_size", len(tokenizer))

    def valid(*found: Any) -> list[int]:
        return [token for token in dict.fromkeys(found) if isinstance(token, int) and 0 <= token < size]

    def listed(ids: Any) -> list[Any]:
        return ids if isinstance(ids, list) else [ids]

    declared = valid(*listed(generation.get("eos_token_id"))) or valid(*listed(config.get("eos_token_id")))
    ends = valid(*declared, tokenizer.eos_token_id, *turn_ends(tokenizer))
    for content in (config, generation):
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            ids = content.get(name)
            kept = valid(*listed(ids))
            # Some configurations have -1 for none, or an id beyond the embeddings.
            if ids is not None and kept != listed(ids):
                content[name] = kept if isinstance(ids, list) else next(iter(valid(getattr(tokenizer, name))), None)
    files.write_json(out / "config.json", config)
    files.write_json(out / "generation_config.json", generation | ({"eos_token_id": ends} if ends else {}))


def read_configuration(source: Path, out: Path) -> PreTrainedConfig:
    """Write config.json for this transformers to ``out``, whatever version wrote it, and return it as read from there.

    Raises:
        UserError: transformers doesn't know the architecture, or a value is none that it can have.
    """
    try:
        config = files.read_json(source / "config.json")
        # Code of its own, without which the model must run.
        config.pop("auto_map", None)
        scaling = config.get("rope_scaling") or {}
        # Phi-3's first name for it, which transformers 5 refuses before it would translate it.
        if scaling.get("type") == "su":
            scaling["type"] = "longrope"
        files.write_json(out / "config.json", config)
        read: PreTrainedConfig = AutoConfig.from_pretrained(out, trust_remote_code=False, local_files_only=True)
        files.write_text(out / "config.json", read.to_json_string())
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise UserError(
            f"{source / 'config.json'}: transformers {transformers.__version__} can't read it ({reason.rstrip('.')}): choose a model whose architecture it has, without code of its own"
        ) from error
    return read


def main() -> None:
    keys = "hub and revision, path, or gguf; config: what config.json must say; source_digests"
    arguments = cli.job_parser(__doc__, keys, "--output-directory").parse_args()
    recipe, out = arguments.recipe, arguments.output_directory

    manifest.prove_sources(recipe["source_digests"])
    out.mkdir(parents=True, exist_ok=True)
    with files.scratch(out.parent / ".gguf.part") as work:
        if recipe.get("gguf"):
            source = convert(locate(recipe["gguf"], work), work / "model")
        else:
            source = Path(recipe["path"]) if recipe["path"] else download(recipe["hub"] or "", recipe["revision"] or "")
        refuse_quantized(source)
        config = read_configuration(source, out)
        # Jobs were planned by what the model's file declares.
        for key, value in (recipe.get("config") or {}).items():
            if (found := getattr(config, key, None)) != value:
                raise UserError(
                    f"config.{key} is {value!r} in the model's file of config/models/, but {found!r} in its config.json"
                )
        copy_weights(source, out)
        settle_tokens(source, out, copy_tokenizer(source, out, config))
    inputs = [Path(name) for name in recipe["source_digests"]]
    manifest.record(out, recipe, inputs, [out / name for name in layout.MODEL_FILES])


if __name__ == "__main__":
    errors.run(main)
