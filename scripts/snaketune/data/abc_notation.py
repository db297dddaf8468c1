"""Measure tunes in ABC notation, the text format of folk music.

A tune may hold the music code of the ABC standard 2.1, section 4
(https://abcnotation.com/wiki/abc:standard:v2.1): notes and rests with accidentals, octave marks and lengths,
bar lines, repeats, numbered endings, ties, slurs, tuplets and broken rhythm. music21 computes the notes' lengths.
"""

import re
from typing import NamedTuple

METRE = re.compile(r"[1-9]\d?/(1|2|4|8|16|32)")
METRE_SIGNS = {"C": "4/4", "C|": "2/2"}
UNIT_LENGTH = re.compile(r"1/(1|2|4|8|16|32)")
KEY = re.compile(r"[A-G][#b]?(?: ?m| ?(?i:maj|min|ion|dor|phr|lyd|mix|aeo|loc)[a-z]*)?")

_LENGTH = r"(?:[1-9]\d?)?(?:/[1-9]\d?|/{1,3})?"
TOKEN = re.compile(
    rf"""(?P<note>(?:(?:\^\^?|__?|=)?[A-Ga-g](?:'{{1,3}}|,{{1,3}})?|z){_LENGTH})
    |(?P<tuplet>\([2-9](?::[1-9]?(?::[1-9]?)?)?)
    |(?P<opening>\()
    |(?P<closing>\))
    |(?P<broken>>{{1,3}}|<{{1,3}})
    |(?P<tie>-)
    |(?P<ending>\[[1-9]|(?<=[|:])[1-9])
    |(?P<line>:\|{{1,2}}:|:\|[|\]]?|\|{{1,2}}:|::|\|[|\]]?|\[\|)
    |(?P<space>[ \t]|\n(?!\s*\n))""",
    re.VERBOSE,
)
KINDS = ("note", "tuplet", "opening", "closing", "broken", "tie", "ending", "line")
LETTERS = dict(zip(KINDS, "npocbtel", strict=True))
# A tie or a broken rhythm follows a note; broken rhythm, tuplets and slurs precede one.
GRAMMAR = re.compile(r"(?:nt?c*(?:b(?=[po]*n))?|p(?=o*n)|o(?=[po]*n)|e|l)*")


class Token(NamedTuple):
    kind: str
    text: str
    apart: bool
    """Whether white space precedes it: notes without are beamed together."""


# A bar that holds notes, and the bar line that closes it: ``|``, one that ends a section, or none.
Bar = tuple[list[Token], str]


def tokenize(body: str) -> list[Token] | None:
    """Return the tokens of a tune's body, or None if anything in it isn't music code."""
    body = body.strip(" \t\n")
    found = [(str(match.lastgroup), match[0]) for match in TOKEN.finditer(body)]
    apart = [False, *(kind == "space" for kind, _ in found)]
    tokens = [Token(*one, after) for one, after in zip(found, apart, strict=False) if one[0] != "space"]
    kinds = "".join(LETTERS[token.kind] for token in tokens)
    music = "".join(text for _, text in found) == body and GRAMMAR.fullmatch(kinds)
    return tokens if music and kinds.count("o") == kinds.count("c") else None


def split_bars(tokens: list[Token]) -> list[Bar]:
    """Group tokens into bars; a bar line after no notes is joined to the one before it, or dropped at the start."""
    bars: list[Bar] = []
    bar: list[Token] = []
    for token in tokens:
        if token.kind != "line":
            bar.append(token)
        elif any(other.kind == "note" for other in bar):
            bars.append((bar, token.text))
            bar = []
        elif bars and token.text != "|":
            bars[-1] = (bars[-1][0], bars[-1][1] + token.text)
    return bars + ([(bar, "")] if any(token.kind == "note" for token in bar) else [])


def read_header(text: str) -> dict[str, str] | None:
    """Return the fields M, L and K of ABC lines such as ``M:6/8``, or None if one is missing or not understood."""
    fields = {}
    for name, pattern in (("M", METRE), ("L", UNIT_LENGTH), ("K", KEY)):
        match = re.search(rf"^{name}: ?(.*?)\s*$", text, re.MULTILINE)
        value = METRE_SIGNS.get(match[1], match[1]) if match else ""
        if not pattern.fullmatch(value):
            return None
        fields[name] = value
    return fields


def bar_lengths(header: dict[str, str], bars: list[Bar]) -> list[float] | None:
    """Return the length of each bar in quarter notes, or None if music21 can't parse the tune."""
    # Imported here because music21 takes a second to import and only tunes need it.
    from music21 import abcFormat

    music = " | ".join(" ".join(token.text for token in bar if token.kind != "ending") for bar, _ in bars)
    # music21 misreads several slashes after a number: A3// is written A3/4.
    music = re.sub(r"/+(?!\d)", lambda slashes: f"/{2 ** len(slashes[0])}", music)
    handler = abcFormat.ABCHandler()
    try:
        # The key is left out: it changes no length, and music21 takes longer over it than over the notes.
        handler.process(f"X:1\nM:{header['M']}\nL:{header['L']}\n{music} |")
    except Exception:
        return None
    lengths, notes = [0.0], 0
    for token in handler.tokens:
        if isinstance(token, abcFormat.ABCBar):
            lengths.append(0.0)
        elif isinstance(token, abcFormat.ABCNote):
            tuplet = token.activeTuplet
            lengths[-1] += float(token.quarterLength) * (float(tuplet.tupletMultiplier()) if tuplet else 1)
            notes += 1
    complete = notes == sum(token.kind == "note" for bar, _ in bars for token in bar)
    return lengths[:-1] if complete and len(lengths) == len(bars) + 1 else None


def count_bars(header: dict[str, str], lengths: list[float], bars: list[Bar]) -> dict[str, int]:
    """Count the bars, and those whose notes sum to the metre.

    A short bar at the start or the end of a section (between repeats or double bar lines) is a pick-up, or
    the rest of one, and isn't counted.
    """
    numerator, denominator = (int(number) for number in header["M"].split("/"))
    metre = 4 * numerator / denominator
    full = sum(abs(length - metre) < 1e-6 for length in lengths)
    last = len(lengths) - 1
    pick_ups = sum(
        length < metre - 1e-6 and (number in (0, last) or bars[number - 1][1] != "|" or bars[number][1] != "|")
        for number, length in enumerate(lengths)
    )
    return {"bars": len(lengths) - pick_ups, "full_bars": full}


def measure(header: str, body: str) -> dict[str, bool | int]:
    """Check whether a text is a tune, and count its bars and full bars.

    Args:
        header: any text with the ABC lines ``M:``, ``L:`` and ``K:``, such as the prompt.
        body: the tune's notes.

    Returns:
        ``valid``: the body is nothing but music code that music21 can parse, with two or more bars; ``bars``
        and ``full_bars`` as in count_bars, 0 for a malformed tune. No text raises an error.
    """
    fields, tokens = read_header(header), tokenize(body)
    if not fields or not tokens:
        return {"valid": False, "bars": 0, "full_bars": 0}
    bars = split_bars(tokens)
    counted = count_bars(fields, bar_lengths(fields, bars) or [], bars)
    return {"valid": counted["bars"] >= 2, **counted}


def ngrams(body: str, n: int) -> list[tuple[str, ...]]:
    """Return the runs of n notes or rests as written (pitch and length); none if the body isn't music code."""
    notes = [token.text for token in tokenize(body) or [] if token.kind == "note"]
    return [tuple(notes[start : start + n]) for start in range(len(notes) - n + 1)]
