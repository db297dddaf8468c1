"""A merge that reads one weight at a time, beside that of a whole model."""

from pathlib import Path

import torch

from snaketune.training.streamed_merge import is_streamable, load_unmerged, save_merged


def assert_merged_alike(base: Path, precision: str, adapter: Path, directory: Path) -> None:
    """Fail unless both files of a streamed merge are those of the whole model, and it runs alike unmerged."""
    assert is_streamable(base, adapter)
    streamed, saved = directory / "streamed", directory / "whole"
    for one, streams in ((streamed, True), (saved, False)):
        one.mkdir()
        save_merged(base, precision, adapter, one, streams)
    for name in ("model.safetensors", "config.json"):
        assert (streamed / name).read_bytes() == (saved / name).read_bytes(), name
    with torch.inference_mode():
        ids = torch.arange(3, 20)[None]
        loaded = (load_unmerged(base, precision, adapter, streams) for streams in (True, False))
        found, expected = (model.eval()(ids).logits for model in loaded)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
