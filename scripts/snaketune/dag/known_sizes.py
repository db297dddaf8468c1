"""How large models and rows are, as far as their files say: exact once a model is fetched and rows are tokenized."""

import json
from pathlib import Path
from typing import Any

from snaketune.core.layout import SPLITS
from snaketune.dag.patterns import BASE, DATA, TRAINING
from snaketune.dag.recipes import Recipes
from snaketune.dag.row_memory import resample_bytes, row_bytes
from snaketune.dag.shape import UNKNOWN, Shape

ROWS_UNKNOWN = 2000


class KnownSizes:
    """The sizes of a matrix's models and rows; each file is read again only if it changes."""

    def __init__(self, matrix: Recipes):
        self.matrix = matrix
        self._figures: dict[tuple[str, int], dict[str, Any]] = {}

    def shape(self, model: str) -> Shape:
        """Return a model's shape from config/models/ or its config.json; of Phi-3-mini until one is there."""
        chosen = self.matrix.models[model]
        if chosen.build:
            return Shape.of(chosen.sizes)
        found = self._read(f"{chosen.path or BASE.format(model=model)}/config.json") or chosen.sizes
        return Shape.of(found) if "num_attention_heads" in found else UNKNOWN

    def rows(self, model: str, scenario: str) -> tuple[int, int]:
        """Return the tokens of the longest row and of all training rows; a bound until they are tokenized."""
        most = min(self.matrix.scenarios[scenario].max_tokens, self.shape(model).context)
        card = self._read(f"{TRAINING.format(model=model, scenario=scenario)}/card.json")
        if not card:
            return most, most * ROWS_UNKNOWN
        longest = max(split["longest"] for split in card["splits"].values())
        return min(longest, most), card["splits"]["train"]["tokens"]

    def tokenized(self, model: str, scenario: str) -> bool:
        return bool(self._read(f"{TRAINING.format(model=model, scenario=scenario)}/card.json"))

    def test_rows(self, scenario: str) -> int:
        """Return the test rows of a scenario; until they are prepared, as many as it keeps at most."""
        card, most = self._read(f"{DATA.format(scenario=scenario)}/card.json"), self.matrix.scenarios[scenario].rows
        return int(card["kept"]["test"]) if card else most.test if most else ROWS_UNKNOWN // 4

    def held_row_bytes(self, kind: str, scenario: str | None) -> float:
        """Return the bytes of the rows that a job of a kind of NEEDS holds, as far as they are known."""
        if kind in ("table", "parity"):
            chosen = [scenario] if scenario else self.matrix.experiment.scenarios
            cards = [self._read(f"{DATA.format(scenario=name)}/card.json") for name in chosen]
            rows = max((card["kept"]["test"] for card in cards if card), default=0)
            return resample_bytes(rows, self.matrix.experiment.evaluation.bootstrap_samples)
        if scenario and kind in ("data", "tokens"):
            directory = Path(DATA.format(scenario=scenario))
            prepared = row_bytes(directory / f"{one}.jsonl" for one in SPLITS)
            # Before a dataset of the hub is fetched, nothing is known of its size.
            return (kind == "tokens" and prepared) or row_bytes(map(Path, self.matrix.scenarios[scenario].source.paths))
        return 0

    def _read(self, name: str) -> dict[str, Any]:
        """Return a JSON file's content, read again only if it changes; nothing if it isn't there yet."""
        try:
            key = (name, Path(name).stat().st_mtime_ns)
            if key not in self._figures:
                self._figures[key] = json.loads(Path(name).read_text())
            return self._figures[key]
        except (OSError, ValueError):
            return {}
