"""An example: the fields of its task, and what decides its split."""

from dataclasses import dataclass
from typing import Any

from snaketune.core.hashing import hash_order

# Named as in the templates of the task, such as text and label; see tasks.py.
Fields = dict[str, Any]


@dataclass
class Example:
    """One example, from raw row to written row; ``split`` is empty until it is assigned."""

    id: str
    fields: Fields
    group: str
    split: str = ""
    given_split: str = ""
    """The split that the data themselves give, if any."""
    where: str = ""
    """The place in the user's data, such as rows.jsonl:17; a built-in corpus has none."""
    file: str = ""

    @property
    def place(self) -> str:
        return self.where or self.id


def split_of(group: str, test: float, validation: float) -> str:
    """Choose the split of a group by its name and the shares alone, so that it is the same on every machine."""
    position = int(hash_order(group)[:16], 16) / 2**64
    return "test" if position < test else "validation" if position < test + validation else "train"
