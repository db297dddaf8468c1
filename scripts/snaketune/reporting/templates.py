"""Fill the templates of the report and of the model card."""

import json
from typing import Any

import jinja2
from markupsafe import Markup

from snaketune.config.claims import differs_from, shown
from snaketune.reporting.numbers import measured, mib, number


def line(text: Any) -> str:
    """Join the lines of a description, which would break a table or a list."""
    return " ".join(str(text).split())


def render(template: str, html: bool, content: dict[str, Any]) -> str:
    """Return a page as HTML, or as Markdown, where escaped quotes would show in code."""
    environment = jinja2.Environment(
        autoescape=html,  # noqa: S701
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=not html,
    )
    environment.filters |= {"number": number, "measured": measured, "mib": mib, "line": line, "json": json.dumps}
    environment.filters |= {"svg": Markup, "shown": shown, "differs_from": differs_from}
    return environment.from_string(template).render(content)
