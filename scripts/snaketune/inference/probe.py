"""The parity probe: logits of a few positions of a few rows, by which conversions are compared."""

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from snaketune.core.files import written_whole
from snaketune.data.tokens import Rows
from snaketune.inference.decoding import Backend

# With its header, a file of probe logits stays below 16 MB.
PROBE_BYTES = 15_900_000


def probe_logits(backend: Backend, rows: list[np.ndarray], positions: int) -> np.ndarray:
    """Return the logits of the last ``positions`` positions of each row: (rows * positions, vocabulary)."""
    return np.concatenate(
        [backend.forward(row[None].astype(np.int64), None, positions)[0][0, -positions:] for row in rows]
    )


def fit_probe(probe: dict[str, int], vocabulary: int) -> tuple[int, int]:
    """Return how many rows, and positions of each, fit into PROBE_BYTES: positions are cut first, then rows.

    Rows are what the parity check resamples; the logits stay fp32, because budgets go down to 1e-3.
    """
    most = max(1, PROBE_BYTES // (4 * vocabulary))
    rows = min(probe["rows"], most)
    return rows, min(probe["positions"], most // rows)


def run_probe(backend: Backend, rows: Rows, probe: dict[str, int]) -> dict[str, np.ndarray]:
    """Run the parity probe: the last ``positions`` positions of each of the first ``rows`` rows, as far as they fit.

    Returns:
        ``logits`` (all positions, vocabulary; float32) and ``positions`` (rows; int64), how many each row has.
    """
    vocabulary = backend.forward(rows.ids[0][None, :1].astype(np.int64), None, 1)[0].shape[-1]
    count, positions = fit_probe(probe, vocabulary)
    chosen = rows.ids[:count]
    lengths = np.array([min(positions, len(row)) for row in chosen], dtype=np.int64)
    return {"logits": probe_logits(backend, chosen, positions), "positions": lengths}


def write_probe(path: Path, backend: Backend, rows: Rows, probe: dict[str, int]) -> None:
    """Write what ``run_probe`` returns as safetensors."""
    with written_whole(path) as aside:
        save_file(run_probe(backend, rows, probe), aside)
