"""Tunes of the corpus are clean, and the measure tells tunes from other text."""

import collections
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snaketune.core.errors import UserError
from snaketune.corpora import tunes as corpus
from snaketune.data import abc_notation
from snaketune.data.examples import Example

HEADER = "Continue this reel in ABC notation.\nM:4/4\nL:1/8\nK:D"
MALFORMED = {"valid": False, "bars": 0, "full_bars": 0}


@pytest.fixture(scope="module")
def rows() -> list[Example]:
    """Every tenth tune of the corpus: reading all takes several seconds."""
    texts = corpus._texts()[::10]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus, "_texts", lambda: texts)
        return corpus.examples(Path(), max_characters=200)


def test_every_tune_is_valid_and_its_completion_short_and_whole(rows: list[Example]) -> None:
    assert len(rows) > 300
    for row in rows:
        measured = abc_notation.measure(row.fields["prompt"], row.fields["completion"])
        assert measured["valid"], row
        assert measured["full_bars"] == measured["bars"] >= 3, row
        completion = row.fields["completion"]
        assert completion.endswith(("|", "|]"))
        assert len(completion) <= 200
        assert completion.count("|") <= 8


def test_tunes_have_ids_of_their_own_and_all_three_collections(rows: list[Example]) -> None:
    assert len({row.id for row in rows}) == len(rows)
    found = {row.id.split("/")[0] for row in rows}
    assert found == {"airdsAirs", "oneills1850", "ryansMammoth"}


HEAD = """ 7
T:Maggie -- Reel
T:The Other Name
M:C|
L:1/8
R:Reel
K:A Mixolydian
"""


def read(monkeypatch: pytest.MonkeyPatch, *texts: str, max_characters: int = 200) -> list[Example]:
    monkeypatch.setattr(corpus, "_texts", lambda: [(str(number), text) for number, text in enumerate(texts)])
    return corpus.examples(Path(), max_characters=max_characters)


def test_a_tune_becomes_its_header_its_first_bar_and_the_bars_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    body = '"A"A2|(B2c2) {ag}.d2-e2|\\\n ~A2 B2 c2-c2| % a comment\nw: words\nA8|(3ABc d2 z4 :|: A8 | B8 |]'
    [row] = read(monkeypatch, HEAD + body)
    assert row.fields["prompt"] == (
        "Continue this reel in ABC notation.\nM:2/2\nL:1/8\nK:Amix\nA2|B2c2 d2e2|"
    )  # the dash between d and e is a slur
    assert row.fields["completion"] == "A2 B2 c2-c2|A8|(3ABc d2 z4::A8|B8|]"


@pytest.mark.parametrize(("longest", "completion"), [(200, "A8|B8|c8|d8:|"), (11, "A8|B8|c8|")])
def test_a_completion_ends_with_its_section_or_where_a_limit_is_met(
    longest: int, completion: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    [row] = read(monkeypatch, HEAD + "G8|A8|B8|c8|d8::e8|f8|", max_characters=longest)
    assert row.fields["completion"] == completion


@pytest.mark.parametrize(
    "body", ["G8|A8|B8|", "G8|A8|B7|c8|d8|", "G8|A8|[Bd]8|c8|d8|", "G8|A8|words|c8|d8|", "G8|A8|\nM:3/4\nB6|c6|d6|", ""]
)
def test_short_or_unclean_tunes_are_left_out(body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read(monkeypatch, HEAD + body) == []


def test_tunes_with_a_title_in_common_are_one_group(monkeypatch: pytest.MonkeyPatch) -> None:
    head, body = "\nM:4/4\nL:1/8\nK:G\n", "G8|A8|B8|c8|d8|"
    titles = ["The First", "Second, A", "First, The\nT:Second's Reel\nT:A Second", "Fourth", "Seconds. 2nd Setting."]
    rows = read(monkeypatch, *(f"1\nT:{title}{head}{body}" for title in titles))
    groups = [row.group for row in rows]
    assert groups[0] == groups[1] == groups[2] == groups[4] != groups[3]


def test_a_music21_without_tunes_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="no tunes found; install music21 with its corpus"):
        corpus.examples(tmp_path, max_characters=200)


@pytest.mark.parametrize(
    ("body", "bars", "full"),
    [
        ("A8|B8|", 2, 2), ("d2|A2B2 c2d2|e4 f3/2g/ a//b3//z/f/|", 2, 2), ("d2|A8|B6:|", 1, 1),
        ("|:A8|B6::d2|c8|A8:|", 3, 3), ("A8|1B6:|2B8|]", 2, 2), ("(3ABc (d2 e2) (6ABcdef|A>B c<d E>>F G2|", 2, 2),
        ("^A4-A4|_B,4 =c'4|", 2, 2), ("A8|B7|C8|", 3, 2), ("A8|B9|C8|", 3, 2), ("A8|B8|c4", 2, 2),
        ("A8\n|B8|\n", 2, 2), ("A|B|c|d|", 2, 0),
    ],
)  # fmt: skip
def test_bars_are_counted_and_their_lengths_summed(body: str, bars: int, full: int) -> None:
    assert abc_notation.measure(HEADER, body) == {"valid": bars >= 2, "bars": bars, "full_bars": full}


@pytest.mark.parametrize(
    "body",
    [
        "", " \n", "Once upon a time there was a tune.", "|||", "A8|B8|\n\nA8|", "M:4/4\nA8|B8|", "A8|H8|", "A0|B8|",
        "A8|B8|(c", "A8|>B8|", "A8|(3|B8|", "-A8|B8|", "A8|[Bd]8|", "A8|B8|🎵",
    ],
)  # fmt: skip
def test_what_isnt_a_tune_has_no_bars(body: str) -> None:
    assert abc_notation.measure(HEADER, body) == MALFORMED


def test_words_of_note_letters_are_no_tune() -> None:
    assert not abc_notation.measure(HEADER, "add a bad cabbage")["valid"]


@pytest.mark.parametrize(
    ("field", "value"),
    [("K", "H"), ("K", "D sideways"), ("K", ""), ("M", "0/4"), ("M", "4/5"), ("M", "four"), ("L", "1/0"), ("L", "8")],
)
def test_a_wrong_header_makes_no_tune(field: str, value: str) -> None:
    header = {"M": "4/4", "L": "1/8", "K": "D"} | {field: value}
    assert abc_notation.measure("\n".join(f"{name}:{text}" for name, text in header.items()), "A8|B8|") == MALFORMED
    del header[field]
    assert abc_notation.measure("\n".join(f"{name}:{text}" for name, text in header.items()), "A8|B8|") == MALFORMED


@pytest.mark.parametrize(
    ("metre", "unit", "body"),
    [("6/8", "1/8", "A3 B3|c6|"), ("9/8", "1/8", "A9|(2AB c6|"), ("C|", "1/8", "A8|B8|"), ("2/4", "1/16", "A8|B8|")],
)
def test_lengths_are_in_the_unit_and_against_the_metre(metre: str, unit: str, body: str) -> None:
    measured = abc_notation.measure(f"M:{metre}\nL:{unit}\nK:Em", body)
    assert measured == {"valid": True, "bars": 2, "full_bars": 2}


@given(st.one_of(st.text(max_size=40), st.text(alphabet="ABcz234/|:[]()<>-^_=',\n ", max_size=40)))
def test_no_text_raises(text: str) -> None:
    for header, body in ((HEADER, text), (text, "A8|B8|"), (f"M:{text}\nL:{text}\nK:{text}", text)):
        measured = abc_notation.measure(header, body)
        assert 0 <= measured["full_bars"] <= measured["bars"]
        assert measured["valid"] == (measured["bars"] >= 2)
    assert all(len(gram) == 2 for gram in abc_notation.ngrams(text, 2))


@given(st.lists(st.integers(1, 9), min_size=2, max_size=9))
def test_a_bar_is_full_where_its_notes_are_as_long_as_the_metre(lengths: list[int]) -> None:
    body = "|".join(f"A{length}" for length in lengths) + "|"
    count = collections.Counter(lengths)
    short = sum(length < 8 for length in (lengths[0], lengths[-1]))
    measured = abc_notation.measure(HEADER, body)
    assert (measured["bars"], measured["full_bars"]) == (len(lengths) - short, count[8])


def test_ngrams_are_runs_of_notes_as_written() -> None:
    assert abc_notation.ngrams("(3A2^B,c/|z4-:|d", 3) == [("A2", "^B,", "c/"), ("^B,", "c/", "z4"), ("c/", "z4", "d")]
    assert abc_notation.ngrams("A B", 3) == []
    assert abc_notation.ngrams("no tune", 1) == []
