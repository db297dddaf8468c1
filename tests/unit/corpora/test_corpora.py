"""Each built-in corpus made of documentation: labels that are true, answers that are there, splits that don't leak."""

import collections
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snaketune.core.files import write_jsonl
from snaketune.corpora import areas, dialogues, docstrings, domain, entities, questions

DOCSTRING = """Compute an incomplete factorization of `A`, i.e. Part of it.

The rest of the text says more.

Parameters
----------
A : (N, N) array_like
    Sparse array to factorize. It is converted first.
drop_tol, fill_factor : float, optional
    Tolerances of the factorization.
mode : {'fast', 'exact'}, default='fast'
    How to go on, for example:

    - quickly
*args
    More.

Returns
-------
factor : :class:`~scipy.sparse.linalg.SuperLU`
    Object with a ``solve`` method.

Raises
------
ValueError
    If `A` isn't square.
LinAlgError: if it is singular.

Examples
--------
>>> factorize(1)
"""


def row(module: str, name: str, text: str, **other: str) -> dict[str, str]:
    found = {"library": "scipy", "module": module, "name": name, "kind": "function", "split": "train"}
    return found | {"group": f"{module}.{name.split('.')[0]}", "text": text} | other


def corpus(tmp_path: Path, *rows: dict[str, str]) -> Path:
    write_jsonl(tmp_path / "documentation.jsonl", rows)
    return tmp_path / "documentation.jsonl"


def test_a_docstring_is_read_with_its_sections() -> None:
    read = docstrings.parse(DOCSTRING)
    assert read.summary == "Compute an incomplete factorization of A, i.e. Part of it."
    sections = {
        name: [(one.name, one.bare_type, one.default, one.description) for one in items]
        for name, items in read.sections.items()
        if items
    }
    assert sections == {
        "Parameters": [
            ("A", "(N, N) array_like", "", "Sparse array to factorize."),
            ("drop_tol, fill_factor", "float", "", "Tolerances of the factorization."),
            ("mode", "{'fast', 'exact'}", "'fast'", ""),
            ("*args", "", "", "More."),
        ],
        "Returns": [("factor", "SuperLU", "", "Object with a solve method.")],
        "Raises": [("ValueError", "", "", "If A isn't square."), ("LinAlgError", "", "", "if it is singular.")],
    }


@pytest.mark.parametrize(
    "text",
    ["", "f(x) -> y", "Of :math:`x^2` and others.", "It does:", "No full stop", "Parameters\n----------\nx : int"],
)
def test_what_is_no_sentence_of_words_is_no_summary(text: str) -> None:
    assert docstrings.parse(text).summary == ""


@pytest.mark.parametrize(
    ("kind", "bare", "default"),
    [
        ("int, default=5", "int", "5"),
        ("float, default: 1e-4", "float", "1e-4"),
        ("bool (default False)", "bool", "False"),
        ("str, optional (default = 'a b')", "str", "'a b'"),
        ("{'a' (default), 'b'}", "", ""),
        ("array_like of shape (n,)", "array_like of shape (n,)", ""),
    ],
)
def test_a_type_is_read_without_its_default(kind: str, bare: str, default: str) -> None:
    item = docstrings.Item("x", kind, "")
    assert (item.bare_type, item.default) == (bare, default)


def test_ids_are_unique_where_a_name_is_defined_twice(tmp_path: Path) -> None:
    path = corpus(tmp_path, *(row("a.b", "C.x", text) for text in ("the getter", "the setter", "the deleter")))
    assert [name for name, _ in docstrings.rows(path)] == ["a.b:C.x", "a.b:C.x:2", "a.b:C.x:3"]


def test_an_area_is_that_of_the_longest_prefix_and_its_names_are_gone(tmp_path: Path) -> None:
    path = corpus(
        tmp_path,
        row("scipy.linalg._x", "f", "SciPy's linalg and la work."),
        row("scipy.linalgebra", "f", "Of no area."),
        row("scipy.sparse.linalg", "f", "one two three four"),
    )
    named = {"sparse": ["scipy.sparse"], "algebra": ["scipy.linalg", "scipy.sparse.linalg"]}
    found = areas.examples(path, areas=named, aliases=["la"], max_characters=17, min_characters=1)
    assert [one.fields for one in found] == [
        {"text": text, "label": "algebra"} for text in ("'s and work.", "one two three")
    ]


def test_no_module_crosses_splits_and_every_text_keeps_the_split_that_pre_training_knows(tmp_path: Path) -> None:
    splits = ("train", "train", "validation", "test")
    rows = [row(f"scipy.m{n // 12}", f"f{n}", f"Text {n} of it.", split=splits[n % 4]) for n in range(1200)]
    topic = {"kind": "reference", "library": "python"}
    rows += [row("python", f"topic{n // 3}.{n}", f"Topic {n}.", split=splits[n // 3 % 4], **topic) for n in range(60)]
    rows += [row("numpy", "f", "Another library.", library="numpy")]
    found = domain.examples(corpus(tmp_path, *rows), libraries=["scipy", "python"], max_characters=99, min_characters=1)
    assert len({(one.group, one.split) for one in found}) == len({one.group for one in found})
    known = {f"{one['module']}:{one['name']}": one["split"] for one in rows}
    assert all(known[one.id] == one.split for one in found)
    assert not any(one.id.startswith("numpy") for one in found)
    assert sum(one.id.startswith("python") for one in found) == 60
    count = collections.Counter(one.split for one in found if one.id.startswith("scipy"))
    assert {split: count[split] / 300 for split in domain.HELD_OUT} == pytest.approx(domain.HELD_OUT, rel=0.5)


def test_texts_of_language_modelling_are_one_line_cut_at_a_word(tmp_path: Path) -> None:
    path = corpus(tmp_path, row("scipy.a", "f", "one\n  two   three"), row("scipy.b", "f", "short"))
    found = domain.examples(path, libraries=["scipy"], max_characters=9, min_characters=6)
    assert [(one.fields["text"], one.group) for one in found] == [("one two", "scipy.a")]


def sentence(text: str, module: str = "numpy", name: str = "mean", library: str = "numpy") -> str:
    """The sentence as it is tagged: entities in brackets with their types."""
    found = entities.tagged(text, entities.Names(row(module, name, text, library=library)))
    if found is None:
        return "ambiguous"
    return " ".join(f"[{a} {tag[2:]}]" if tag != "O" else a for a, tag in zip(*found, strict=True))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("See `sum`, the sum in all.", "See [sum function] , the sum in all ."),
        ("An ``ndarray`` or ndarray.", "An [ndarray class] or ndarray ."),
        ("Call median() or numpy.linalg.norm().", "Call [median function] or [numpy.linalg.norm function] ."),
        ("Raises :exc:`~numpy.linalg.LinAlgError`.", "Raises [numpy.linalg.LinAlgError exception] ."),
        ("A ValueError, no ValueErrors.", "A [ValueError exception] , no ValueErrors ."),
        ("With collections.OrderedDict, not x.shape.", "With [collections.OrderedDict class] , not x.shape ."),
        ("In `numpy` and numpy.random.", "In [numpy module] and [numpy.random module] ."),
        ("Not `random` alone.", "Not random alone ."),
        ("Use np.BUFSIZE or BUFSIZE or LU.", "Use np.BUFSIZE or BUFSIZE or LU ."),
        ("With pickle.HIGHEST_PROTOCOL, e.g. by `add(x)`.", "With [pickle.HIGHEST_PROTOCOL constant] , e.g. by [add function] ( x ) ."),
        ("A non-negative NumPy array_split isn't set.", "A non-negative NumPy [array_split function] isn't set ."),
        ("The array(s), not array(x).", "The array ( s ) , not [array function] ( x ) ."),
        ("The `axis` and `dtype` of `mean`.", "The axis and dtype of [mean function] ."),
    ],
)  # fmt: skip
def test_names_of_code_are_tagged_as_what_they_name(text: str, expected: str) -> None:
    assert sentence(text) == expected


def test_a_capitalised_word_that_may_be_a_class_makes_the_sentence_ambiguous() -> None:
    assert sentence("A Counter of words.", "collections", "OrderedDict") == "ambiguous"
    assert sentence("A `Counter` of Greek words.", "collections", "OrderedDict") == "A [Counter class] of Greek words ."


def test_names_are_looked_up_in_the_documented_class_first() -> None:
    assert sentence("After `move_to_end`.", "collections", "OrderedDict.popitem") == "After [move_to_end function] ."
    assert sentence("After `move_to_end`.", "collections", "namedtuple") == "After move_to_end ."


PROSE = """Return the `median` of it.

It goes on
over two lines. Then :math:`x` is lost. This one too

Parameters
----------
a : int
    Indented text of `mean` here.

    - An item with `std` in it.

Examples
--------
Never with `var` here.

Notes
-----
After the examples is `sum` again.
"""


def test_sentences_are_those_of_prose() -> None:
    assert list(entities.prose(PROSE)) == [
        "Return the `median` of it.",
        "It goes on over two lines.",
        "Indented text of `mean` here.",
        "An item with `std` in it.",
        "After the examples is `sum` again.",
    ]


def test_a_sentence_is_kept_once_and_a_fifth_have_no_entity(tmp_path: Path) -> None:
    named = [row("numpy", f"f{n}", f"Number {n} calls `mean` here.", library="numpy") for n in range(8)]
    unnamed = [row("numpy", f"g{n}", f"Number {n} calls none here.", library="numpy") for n in range(8)]
    path = corpus(
        tmp_path,
        *named,
        *unnamed,
        row("numpy", "h", "Number 3 calls `mean` here.", library="numpy", split="test"),
        row("numpy._core.x", "f", "A private module calls `mean`.", library="numpy"),
        row("numpy.tests.x", "f", "A test calls `mean` here.", library="numpy"),
        row("numpy.no_such_module", "f", "None calls `mean` here.", library="numpy"),
        row("torch", "f", "Another library calls `mean` here.", library="torch"),
    )
    found = entities.examples(path, max_words=6, min_words=3)
    assert collections.Counter((one.split, "B-function" in one.fields["tags"]) for one in found) == {
        ("train", True): 7,
        ("train", False): 1,
        ("test", True): 1,
    }
    assert all(len(one.fields["tokens"]) == len(one.fields["tags"]) == 6 for one in found)


@given(st.integers(80, 500))
def test_every_answer_is_a_span_of_a_passage_that_fits(length: int) -> None:
    read = docstrings.parse(DOCSTRING)
    context, shown = questions.passage("f", read, length)
    assert len(context) <= length
    assert all(one.answer in context for one in questions.questions(read, shown))


def test_what_is_asked_is_answered_rightly() -> None:
    read = docstrings.parse(DOCSTRING)
    context, shown = questions.passage("f", read, 500)
    assert context.splitlines()[:3] == [f"f: {read.summary}", "Parameters", "A : (N, N) array_like"]
    assert {(one.kind, one.item, one.answer) for one in questions.questions(read, shown) if one.answer} == {
        ("summary", "", "Compute an incomplete factorization of A, i.e. Part of it"),
        ("type", "A", "(N, N) array_like"),
        ("meaning", "A", "Sparse array to factorize"),
        ("type", "mode", "{'fast', 'exact'}"),
        ("default", "mode", "'fast'"),
        ("returns", "", "SuperLU"),
        ("condition", "ValueError", "If A isn't square"),
        ("condition", "LinAlgError", "if it is singular"),
    }


def test_a_question_is_phrased_by_its_kind_and_item_alone() -> None:
    for number in range(9):
        key = docstrings.choose(f"m:{number}typeA", questions.PHRASES["type"])
        for answer in ("int", "str"):
            asked = questions.Question("type", "A", answer)
            made = questions.example(f"m:{number}", row("scipy.m", "f", ""), "A : int or str", asked)
            assert made.fields["question"] == key.format(item="A")


def test_questions_are_of_all_kinds_alike(tmp_path: Path) -> None:
    rows = [row(f"scipy.m{n}", "f", DOCSTRING, split=("train", "test")[n % 2]) for n in range(60)]
    found = questions.examples(corpus(tmp_path, *rows, row("scipy.m", "g", "No sections here.")), max_characters=400)
    for split in ("train", "test"):
        count = collections.Counter(one.id.split("#")[1] for one in found if one.split == split)
        assert set(count) == {"summary", "type", "meaning", "default", "returns", "condition"}
        assert max(count.values()) - min(count.values()) <= 1
    assert len({one.id for one in found}) == len(found)
    assert all(one.fields["answers"][0] in one.fields["context"] for one in found)


def test_dialogues_answer_from_the_docstring_and_fit(tmp_path: Path) -> None:
    rows = [row(f"scipy.m{n}", "f", DOCSTRING) for n in range(60)]
    path = corpus(tmp_path, *rows, row("scipy.m", "_g", DOCSTRING), row("scipy.m", "", DOCSTRING, kind="module"))
    found = dialogues.examples(path, max_characters=350)
    assert len(found) == 60
    answers, turns = set[str](), collections.Counter[int]()
    for one in found:
        messages = one.fields["messages"]
        roles, spoken = zip(*((m["role"], m["content"]) for m in messages if m["role"] != "system"), strict=True)
        assert roles == ("user", "assistant") * (len(roles) // 2)
        assert sum(len(message["content"]) for message in messages) <= 350
        assert f"`{one.id.replace(':', '.')}`" in spoken[0]
        assert spoken[1] == "Compute an incomplete factorization of A, i.e. Part of it."
        answers |= {answer for answer in spoken[3::2] if "is in" not in answer}
        turns[len(roles) // 2] += 1
    assert answers == {
        "It takes A, drop_tol, fill_factor, mode and *args.",
        "It returns SuperLU: Object with a solve method.",
        "It raises ValueError and LinAlgError.",
        "The default of mode is 'fast'.",
        "A is of type (N, N) array_like.",
        "mode is one of {'fast', 'exact'}.",
        "It is a function.",
    }
    assert set(turns) == {1, 2, 3}
    assert max(turns, key=turns.__getitem__) == 2


def test_a_dialogue_that_is_too_long_loses_its_last_turns(tmp_path: Path) -> None:
    path = corpus(tmp_path, *(row(f"scipy.m{n}", "f", DOCSTRING) for n in range(20)))
    found = dialogues.examples(path, max_characters=95)
    assert found
    assert {len(one.fields["messages"]) for one in found} == {2}
    assert dialogues.examples(path, max_characters=50) == []
