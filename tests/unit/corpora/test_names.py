"""Names and their translations come from the CLDR, and a name stays in one split."""

import collections
from pathlib import Path

import pytest

from snaketune.core.errors import UserError
from snaketune.corpora import names
from snaketune.data.examples import Example

LANGUAGES = {"es": "Spanish", "pt": "Portuguese"}


@pytest.fixture(scope="module")
def rows() -> list[Example]:
    return names.examples(Path(), languages=LANGUAGES)


@pytest.mark.parametrize(
    ("identity", "source", "target"),
    [
        ("es:territory:DE", "Germany", "Alemania"),
        ("pt:territory:DE", "Germany", "Alemanha"),
        ("es:language:fr", "French", "francés"),
        ("pt:script:Cyrl", "Cyrillic", "cirílico"),
        ("es:month:1", "January", "enero"),
        ("pt:day:0", "Monday", "segunda-feira"),
        ("es:unit:length-mile", "miles", "millas"),
        ("es:currency:SEK:plural", "Swedish kronor", "coronas suecas"),
        ("es:city:Europe/London", "London", "Londres"),
        ("es:zone:Europe_Central:generic", "Central European Time", "hora de Europa central"),
    ],
)
def test_each_kind_of_name_is_translated(identity: str, source: str, target: str, rows: list[Example]) -> None:
    [found] = [row for row in rows if row.id == identity]
    assert (found.fields["source"], found.fields["target"]) == (source, target)
    assert found.fields["language"] == LANGUAGES[identity[:2]]


def test_there_are_enough_and_each_has_an_id_of_its_own(rows: list[Example]) -> None:
    assert len({row.id for row in rows}) == len(rows) > 2500
    count = collections.Counter(row.fields["language"] for row in rows)
    assert min(count["Spanish"], count["Portuguese"]) > 1000


def test_all_languages_and_forms_of_a_concept_share_a_group(rows: list[Example]) -> None:
    concepts, texts = collections.defaultdict(set), collections.defaultdict(set)
    for row in rows:
        concepts[tuple(row.id.split(":")[1:3])].add(row.group)
        texts[row.fields["source"].lower()].add(row.group)
    assert all(len(groups) == 1 for groups in concepts.values())
    assert all(len(groups) == 1 for groups in texts.values())
    of_dollar = [row.id for row in rows if row.group == "us dollar"]
    assert of_dollar == [f"{code}:currency:USD{form}" for form in ("", ":plural") for code in LANGUAGES]


def test_a_name_has_one_translation_and_it_is_another_word(rows: list[Example]) -> None:
    pairs = [(row.fields["language"], row.fields["source"].lower()) for row in rows]
    assert len(set(pairs)) == len(pairs)
    assert not [row for row in rows if row.fields["source"].lower() == row.fields["target"].lower()]
    assert all(row.fields["source"].strip() and row.fields["target"].strip() for row in rows)


def test_numeric_codes_are_left_out(rows: list[Example]) -> None:
    codes = [row.id.split(":")[2] for row in rows if row.id.split(":")[1] in ("territory", "variant")]
    assert codes
    assert not [code for code in codes if code.isdigit()]


def test_a_further_language_changes_no_other_row(rows: list[Example]) -> None:
    more = names.examples(Path(), languages={**LANGUAGES, "fr": "French"})
    assert [row for row in more if row.fields["language"] != "French"] == rows


@pytest.mark.parametrize("code", ["qqq", "", "not a language"])
def test_an_unknown_language_is_refused(code: str) -> None:
    with pytest.raises(UserError, match=f"has no language '{code}'"):
        names.examples(Path(), languages={code: "Unknown"})
