"""An example: the fields of its task, and what decides its split."""

from dataclasses import dataclass
from typing import Any

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

    @property
    def place(self) -> str:
        return self.where or self.id
