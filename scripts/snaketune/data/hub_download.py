"""Download a model from the Hugging Face hub: a pinned snapshot, without any code."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from httpx2 import HTTPError
from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

from snaketune.core.errors import UserError

PATTERNS = [
    "*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json", "tokenizer*",
    "special_tokens_map.json", "added_tokens.json", "chat_template.jinja", "*.model", "vocab.json", "merges.txt",
]  # fmt: skip


def download(hub: str, revision: str, patterns: list[str] = PATTERNS) -> Path:
    """Download a pinned snapshot, without any code, into the hub's cache."""
    with _explained(hub, revision):
        return Path(snapshot_download(hub, revision=revision, allow_patterns=patterns))


def commit_of(hub: str, revision: str) -> tuple[str, str]:
    """Ask the hub for the 40-digit commit of a branch, tag or commit, and for the licence on the model's card."""
    with _explained(hub, revision):
        found = HfApi().model_info(hub, revision=revision)
        return found.sha or "", getattr(found.card_data, "license", None) or "unknown"


@contextmanager
def _explained(hub: str, revision: str) -> Iterator[None]:
    """Turn what the hub's client raises into one message."""
    try:
        yield
    except GatedRepoError:
        raise UserError(f"{hub} is gated: accept its licence on the hub and set HF_TOKEN") from None
    except RevisionNotFoundError:
        raise UserError(
            f"{hub} has no revision {revision}: copy the 40-digit commit from its page on the hub"
        ) from None
    except RepositoryNotFoundError:
        raise UserError(f"the hub has no model {hub} (or it is private: set HF_TOKEN)") from None
    # The hub's other errors are OSErrors too.
    except (HTTPError, OSError, ValueError) as error:
        need_writable(Path(constants.HF_HUB_CACHE))
        reason = (str(error) or type(error).__name__).splitlines()[0][:200]
        response = getattr(error.__cause__, "response", None) or getattr(error, "response", None)
        refused = isinstance(error, ValueError) or (response is not None and response.status_code < 500)
        raise UserError(
            f"{hub} at {revision[:12]} can't be downloaded ({reason}): check the network, or HF_ENDPOINT for a mirror, or download it elsewhere and give `path:`",
            passing=not refused,
        ) from None


def need_writable(cache: Path) -> None:
    """Raise a UserError if nothing can be written to the hub's cache, which is in the home directory."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=cache):
            pass
    except OSError as error:
        raise UserError(
            f"{cache}: can't be written to ({error.strerror}), and downloads are kept there: set HF_HOME to a directory that you can write to, on a disk with room for the model"
        ) from None
