"""Make a model directory readable for the older transformers of the export environment."""

import shutil
from pathlib import Path
from typing import Any

from snaketune.core.files import write_json


def older_scaling(rope: dict[str, Any]) -> dict[str, Any]:
    """Return the `rope_scaling` of transformers 4; Phi-3's long-rope must have exactly these three keys."""
    kind = rope.get("rope_type", rope.get("type"))
    if kind == "longrope":
        return {"type": kind, "short_factor": rope["short_factor"], "long_factor": rope["long_factor"]}
    return {**rope, "type": kind}


def with_older_keys(config: dict[str, Any]) -> dict[str, Any]:
    """Add the rope and dtype keys that transformers 4 reads to a model configuration.

    transformers 5 saves `rope_parameters`; version 4 ignores that and would silently fall back to
    the default rope.
    """
    older = dict(config)
    rope = dict(older.get("rope_parameters") or {})
    if "full_attention" in rope:
        # Gemma 3 has a rope for each kind of layer.
        older["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
        rope = dict(rope["full_attention"])
    if rope:
        older["rope_theta"] = rope.pop("rope_theta", config.get("rope_theta", 10000.0))
        if "partial_rotary_factor" in rope:
            older["partial_rotary_factor"] = rope.pop("partial_rotary_factor")
        scaled = rope.get("rope_type", rope.get("type", "default")) != "default"
        older["rope_scaling"] = older_scaling(rope) if scaled else None
        if "original_max_position_embeddings" in rope:
            older["original_max_position_embeddings"] = rope["original_max_position_embeddings"]
        elif not scaled and "original_max_position_embeddings" in older:
            # By the difference the genai builder recognizes Phi-3's long-rope.
            older["original_max_position_embeddings"] = older["max_position_embeddings"]
    if "dtype" in older:
        older["torch_dtype"] = older["dtype"]
    return older


def link_model(model: Path, directory: Path, config: dict[str, Any]) -> None:
    """Make ``directory`` with links to the weights of ``model`` and another configuration."""
    directory.mkdir()
    for path in model.glob("*.safetensors"):
        (directory / path.name).symlink_to(path.absolute())
    write_json(directory / "config.json", config)
    shutil.copyfile(model / "generation_config.json", directory / "generation_config.json")
