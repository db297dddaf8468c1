"""The code that two or more scripts of the workflow share."""

import os

for _switch in ("HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK", "HF_HUB_DISABLE_PROGRESS_BARS"):
    os.environ.setdefault(_switch, "1")
# Else each dataset that is loaded sends one more request, which the hub counts.
os.environ.setdefault("HF_UPDATE_DOWNLOAD_COUNTS", "0")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
# Waiting threads of OpenMP spin for so long that on busy cores they keep the thread they wait for from running: two threads
# trained 264 tokens/s on two cores that other work shared, with this 1,600, and as many as before on idle ones (10,400).
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
