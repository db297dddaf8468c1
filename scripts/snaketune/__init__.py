"""The code that two or more scripts of the workflow share."""

import os

for _switch in ("HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK", "HF_HUB_DISABLE_PROGRESS_BARS"):
    os.environ.setdefault(_switch, "1")
# Else each dataset that is loaded sends one more request, which the hub counts.
os.environ.setdefault("HF_UPDATE_DOWNLOAD_COUNTS", "0")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
# A thread that waits for another by spinning takes the core from the very thread it waits for: two threads of one job
# on two busy cores trained 264 tokens/s, asleep 3,300.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
