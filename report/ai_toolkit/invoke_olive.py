"""Train what olive-config.json says: `python finetuning/invoke_olive.py`."""

import json
import os
from pathlib import Path

# The configuration's paths begin at the project, and the base model and the rows are in it.
os.chdir(Path(__file__).resolve().parents[1])
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OLIVE_DISABLE_TELEMETRY", "1")

from olive.workflows import run  # noqa: E402  (reads the environment)

CONFIGURATION = json.loads(Path("finetuning/olive-config.json").read_text(encoding="utf-8"))
run(CONFIGURATION)
print("adapter:", Path(CONFIGURATION["engine"]["output_dir"]).resolve())
