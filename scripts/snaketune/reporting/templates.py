"""Fill the templates of the report and of the model card."""

import json
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from snaketune.config.claims import differs_from, shown
from snaketune.reporting.decision import named
from snaketune.reporting.numbers import counted, measured, mib, number


def line(text: Any) -> str:
    """Join the lines of a description, which would break a table or a list."""
    return " ".join(str(text).split())


def pretty(content: Any) -> str:
    return json.dumps(content, indent=1, ensure_ascii=False)


def script_json(content: Any) -> Markup:
    """Return JSON for a script element, which no text can end."""
    return Markup(json.dumps(content, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c"))  # noqa: S704


def render(template: Path, html: bool, content: dict[str, Any]) -> str:
    """Return a page as HTML, or as Markdown, where escaped quotes would show in code.

    A template includes others by their paths from its own directory, and files that are no template by ``source``.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(template.parent),
        autoescape=html,  # noqa: S701
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=not html,
    )
    environment.filters |= {
        "number": number,
        "measured": measured,
        "mib": mib,
        "counted": counted,
        "line": line,
        "json": json.dumps,
    }
    environment.filters |= {
        "script_json": script_json,
        "pretty": pretty,
        "named": named,
        "shown": shown,
        "differs_from": differs_from,
    }
    environment.globals["source"] = lambda name: Markup((template.parent / name).read_text(encoding="utf-8"))  # noqa: S704
    return environment.get_template(template.name).render(content)
