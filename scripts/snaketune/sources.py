"""What every source of examples shares."""

from typing import Any

# id, group, perhaps split, and the fields of the task; of the user's data also where it stands.
Example = dict[str, Any]


def origin(source: dict[str, Any]) -> str:
    """A scenario's source in a few words."""
    if source["hub"]:
        return f"{source['hub']}@{source['revision'][:12]}"
    if isinstance(source["path"], dict):
        return ", ".join(dict.fromkeys(sorted(source["path"].values())))
    return str(source["path"] or source["builtin"])
