"""Openings of folk tunes in ABC notation with their continuations: the built-in corpus of generation.

The tunes are those of three printed collections, out of copyright by their age, whose ABC transcriptions
music21 brings with it (its corpus/license.txt: distributed with the permission of the encoders; each
transcriber is named in the files, and none of these files states a restriction; that notice warns that some
encodings of the corpus may restrict commercial use, so check them before any):

- airdsAirs: James Aird, A Selection of Scotch, English, Irish and Foreign Airs, Glasgow, from 1778 (six volumes);
- ryansMammoth: William Bradbury Ryan, Ryan's Mammoth Collection, Boston 1883;
- oneills1850: Francis O'Neill, O'Neill's Music of Ireland, Chicago 1903 (1850 is the number of its melodies).

Other folk tunes of music21 are left out: its Essen collection is for non-commercial use, and the licence of its
Nottingham data set isn't clearly stated.
"""

import importlib.util
import re
import unicodedata
from pathlib import Path
from typing import NamedTuple

import networkx

from snaketune.core.errors import UserError
from snaketune.data import abc_notation
from snaketune.data.abc_notation import Bar, Token
from snaketune.data.examples import Example

COLLECTIONS = ("airdsAirs", "oneills1850", "ryansMammoth")
RHYTHMS = (
    "strathspey", "slip jig", "double jig", "jig", "hornpipe", "reel", "clog", "highland fling", "quick step",
    "march", "minuet", "waltz", "air",
)  # fmt: skip
MODES = {"maj": "", "min": "m"}
LEAST_BARS, MOST_BARS = 3, 8


class Tune(NamedTuple):
    header: dict[str, str]
    rhythm: str
    titles: set[str]
    tokens: list[Token]


def examples(corpus: Path, *, max_characters: int) -> list[Example]:
    """Return tunes as a prompt (rhythm, metre, unit length, key and the first bar) and a completion (the next bars).

    A completion ends at the end of a section, after eight bars (the prompt's among them, without a pick-up), or with
    the last bar that fits. Tunes with chords, with several voices, or with a bar in the example that doesn't sum to
    the metre are left out. Tunes that share a title are one group.

    Args:
        corpus: unused; tunes need no documentation.
        max_characters: of a completion.

    Raises:
        UserError: music21 is installed without its corpus.
    """
    rows, titles = [], []
    for identity, text in _texts():
        if (tune := _read(text)) and (cut := _cut(tune, max_characters)):
            opening, completion = cut
            header = "\n".join(f"{name}:{value}" for name, value in tune.header.items())
            prompt = f"Continue this {tune.rhythm} in ABC notation.\n{header}\n{opening}"
            rows.append((identity, {"prompt": prompt, "completion": completion}))
            titles.append(tune.titles)
    return [Example(*row, group) for row, group in zip(rows, _groups(titles), strict=True)]


def _texts() -> list[tuple[str, str]]:
    """Return an id and the text of each tune; a file may hold many, each beginning with its field X."""
    # Importing music21 takes a second, and its files are all that is needed.
    package = importlib.util.find_spec("music21")
    folder = Path(package.origin).parent / "corpus" if package and package.origin else Path("music21/corpus")
    found = []
    for path in (path for collection in COLLECTIONS for path in sorted((folder / collection).glob("*.abc"))):
        parts = re.split(r"^X:", path.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
        found += [(f"{path.parent.name}/{path.stem}:{number}", part) for number, part in enumerate(parts, start=1)]
    if not found:
        raise UserError(
            f"{folder}: no tunes found; install music21 with its corpus (pip install --force-reinstall music21)"
        )
    return found


def _read(text: str) -> Tune | None:
    """Parse a tune, or return None if it isn't plain ABC for one voice."""
    head, last, body = ([*re.split(r"^(K:.*)$", text, maxsplit=1, flags=re.MULTILINE), "", ""])[:3]
    fields: dict[str, list[str]] = {}
    for name, value in re.findall(r"^([A-Z]): *(.*?) *$", re.sub(r"%.*", "", f"{head}{last}"), re.MULTILINE):
        fields.setdefault(name, []).append(value)
    key = re.fullmatch(r"([A-G][#b]?) *([A-Za-z]*)", fields.get("K", [""])[0])
    if key is None or not {"M", "L", "T"} <= fields.keys() or "V" in fields:
        return None
    mode = key[2] if len(key[2]) == 1 else MODES.get(key[2][:3].lower(), key[2][:3].lower())
    header = abc_notation.read_header(f"M:{fields['M'][0]}\nL:{fields['L'][0]}\nK:{key[1]}{mode}")
    tokens = abc_notation.tokenize(_plain(body))
    if not header or not tokens:
        return None
    return Tune(header, _rhythm(fields), {_plain_title(title) for title in fields["T"]}, _without_slurs(tokens))


def _rhythm(fields: dict[str, list[str]]) -> str:
    """Return the first known rhythm in the field R, or else in a title."""
    texts = [text.lower().replace("slipjig", "slip jig") for text in fields.get("R", []) + fields["T"]]
    return next((name for text in texts for name in RHYTHMS if re.search(rf"\b{name}\b", text)), "tune")


def _plain_title(title: str) -> str:
    """Strip article, rhythm, setting number, accents and punctuation, in which the collections differ."""
    title = re.sub(r"\b\d(st|nd|rd|th) (setting|version)\b", "", title.lower())
    ascii_only = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode()
    words = re.findall(r"[a-z0-9]+", ascii_only.replace("'", ""))
    return " ".join(word for word in words if word not in {"the", "a", "an", *RHYTHMS}) or " ".join(words)


def _plain(body: str) -> str:
    """Strip comments, fields, quoted texts, grace notes, decorations and slurs from a body."""
    # An empty line ends a tune; a change of metre, unit length, key or voice ends what its header describes.
    body = re.split(r"\n\s*\n|^[MLKV]:|\[[MLKV]:", body.strip(), maxsplit=1, flags=re.MULTILINE)[0]
    body = re.sub(r"%.*|^[A-Za-z]:.*|\\", "", body, flags=re.MULTILINE)
    body = re.sub(r'"[^"]*"|\{[^}]*\}|![^!\n]*!|[.~`H-WYh-wy]', "", body)
    return " ".join(re.sub(r"\((?!\d)|\)", "", body).split())


def _without_slurs(tokens: list[Token]) -> list[Token]:
    """Drop dashes between notes of different pitch: those are slurs of an older ABC, not ties."""
    kept = []
    for number, token in enumerate(tokens):
        following = next((other.text for other in tokens[number:] if other.kind == "note"), "")
        if token.kind != "tie" or _pitch(following) == _pitch(tokens[number - 1].text):
            kept.append(token)
    return kept


def _pitch(note: str) -> str:
    return re.sub(r"[\^_=\d/]", "", note)


def _cut(tune: Tune, max_characters: int) -> tuple[str, str] | None:
    """Return the first bar with its pick-up, and the bars after it; None if they are too few or of a wrong length."""
    bars = abc_notation.split_bars(tune.tokens)[: MOST_BARS + 1]
    lengths = abc_notation.bar_lengths(tune.header, bars)
    if not lengths:
        return None
    start = 1 if abc_notation.count_bars(tune.header, lengths[:1], bars[:1])["bars"] else 2
    opening, completion, end = _write(bars[:start]), "", start
    while end < min(start + MOST_BARS - 1, len(lengths)):
        longer = _write(bars[start : end + 1])
        if len(longer) > max_characters:
            break
        completion, end = longer, end + 1
        if end - start > LEAST_BARS and bars[end - 1][1] != "|":
            break
    counted = abc_notation.count_bars(tune.header, lengths[start:end], bars[start:end])
    whole = abc_notation.count_bars(tune.header, lengths[:start], bars[:start])["full_bars"] == 1
    plain = all(line == "|" for _, line in bars[:start])
    clean = whole and plain and counted["full_bars"] == counted["bars"] >= LEAST_BARS
    return (opening, completion) if clean else None


def _write(bars: list[Bar]) -> str:
    text = ""
    for bar, line in bars:
        text += "".join(f" {token.text}" if token.apart else token.text for token in bar).strip() + _line(line)
    # A repeat that would start after the last bar isn't part of the example.
    return re.sub(r"(::|\|:)$", lambda match: ":|" if match[0] == "::" else "|", text)


def _line(line: str) -> str:
    """Return the standard's bar line for adjacent lines and for older notations."""
    if line.startswith(":") or line.endswith(":"):
        return "::" if line[0] == line[-1] else ":|" if line.startswith(":") else "|:"
    return "|]" if "]" in line else "||" if line not in ("|", "") else "|"


def _groups(titles: list[set[str]]) -> list[str]:
    """Return one title for all tunes that are linked by common titles."""
    links = networkx.Graph()
    for names in titles:
        networkx.add_path(links, names)
    leader = {title: min(linked) for linked in networkx.connected_components(links) for title in linked}
    return [leader[min(names)] for names in titles]
