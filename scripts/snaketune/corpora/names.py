"""English names of places, languages, money, units and time with their translations: the built-in corpus of translation.

The names are the display names of the Unicode CLDR (https://cldr.unicode.org, Unicode-3.0 licence), read
through Babel: territories, languages, scripts and their variants, currencies (with their plurals), units,
months, days, quarters, eras, periods of the day, time zones and their cities.
"""

from pathlib import Path
from typing import Any

from babel import Locale, UnknownLocaleError
from babel.dates import get_day_names, get_era_names, get_month_names, get_period_names, get_quarter_names
from babel.numbers import get_currency_name
from babel.units import get_unit_name

from snaketune.core.errors import UserError
from snaketune.data.examples import Example

Concept = tuple[str, str]


def examples(corpus: Path, *, languages: dict[str, str]) -> list[Example]:
    """Return English names with their translations and the languages' names.

    A concept, such as a currency in singular and plural, is one group in all languages. A name has one
    translation into a language: that of the first concept with this name, countries before cities. Names
    that are spelled as in English, apart from case, are left out: they need no translation.

    Args:
        corpus: unused, these names need no documentation.
        languages: English name of each target language by its CLDR code, such as ``{"es": "Spanish"}``.

    Raises:
        UserError: the CLDR has no such language.
    """
    for code in languages:
        try:
            Locale.parse(code)
        except (UnknownLocaleError, ValueError):
            raise UserError(
                f"languages: the Unicode CLDR has no language {code!r}; expected a code such as 'es' or 'pt'"
            ) from None
    zones = sorted({str(zone) for code in ("en", *languages) for zone in Locale.parse(code).time_zones})
    english = _names("en", zones)
    translations = {code: _names(code, zones) for code in languages}
    rows: list[Example] = []
    seen: set[tuple[str, str]] = set()
    for concept, forms in english.items():
        group = next(iter(forms.values()), "").lower()
        for form, source in forms.items():
            for code, language in languages.items():
                target = translations[code].get(concept, {}).get(form)
                if target is None or target.lower() == source.lower() or (code, source.lower()) in seen:
                    continue
                seen.add((code, source.lower()))
                identity = ":".join(part for part in (code, *concept, form) if part)
                rows.append(Example(identity, {"source": source, "target": target, "language": language}, group))
    return rows


def _names(code: str, zones: list[str]) -> dict[Concept, dict[str, str]]:
    """Return the forms of each concept (kind and code) in one language; within a kind in the order of codes."""
    locale = Locale.parse(code)
    single: dict[str, dict[Any, str | None]] = {
        "territory": dict(locale.territories.items()),
        "language": dict(locale.languages.items()),
        "script": dict(locale.scripts.items()),
        "variant": dict(locale.variants.items()),
        "unit": {unit: get_unit_name(str(unit), "long", locale) for unit in locale.unit_display_names},
        "month": dict(get_month_names("wide", "stand-alone", locale).items()),
        "day": dict(get_day_names("wide", "stand-alone", locale).items()),
        "quarter": dict(get_quarter_names("wide", "stand-alone", locale).items()),
        "era": dict(get_era_names("wide", locale).items()),
        "period": dict(get_period_names("wide", "stand-alone", locale).items()),
    }
    # Numeric codes are groups of countries, and spelling reforms that are named by their year.
    found = {
        (kind, str(key)): {"": name}
        for kind, names in single.items()
        for key, name in sorted(names.items())
        if name and not (kind in ("territory", "variant") and str(key).isdigit())
    }
    for currency in sorted(locale.currencies):
        found["currency", currency] = {
            "": get_currency_name(currency, locale=locale),
            "plural": get_currency_name(currency, count=2, locale=locale),
        }
    for zone, lengths in sorted(locale.meta_zones.items()):
        found["zone", zone] = dict(sorted(lengths.get("long", {}).items()))
    for zone in zones:
        # A city without a name of its own is called like its zone (Unicode TR 35, part 4, time zone names).
        city = locale.time_zones.get(zone, {}).get("city") or zone.rsplit("/", 1)[-1].replace("_", " ")
        found["city", zone] = {"": city}
    return found
