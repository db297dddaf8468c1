"""Help dialogues on the locked libraries, made from their docstrings: the built-in corpus of chat."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from snaketune.core.hashing import hash_order
from snaketune.corpora.docstrings import Docstring, Row, capped, choose, documented
from snaketune.data.examples import Example

MOST_NAMES = 8
LONGEST_FACT = 120
LONGEST_SUMMARY = 140
# One follow-up mostly: two turns.
FOLLOW_UPS = [0, 1, 1, 1, 1, 1, 2, 2]
SYSTEM = [
    "You help with the Python library {library}.",
    "You answer questions about {library} in one sentence.",
    "You are a helpful assistant for Python programmers.",
]
FIRST = ["What does `{path}` do?", "Tell me what `{path}` does.", "What is `{path}` for?", "Explain `{path}` to me."]
PHRASES = {
    "parameters": ["Which parameters does it take?", "What are its parameters?", "What can I pass to it?"],
    "returns": ["What does it return?", "And what do I get back?", "What is returned?"],
    "raises": ["Which exception can it raise?", "Does it raise an exception?"],
    "default": ["What is the default of `{item}`?", "Which value does `{item}` have by default?"],
    "type": ["Of what type is `{item}`?", "What should I pass as `{item}`?"],
    "module": ["In which module is it?", "Where do I find it?"],
    "kind": ["Is it a function, a method or a class?", "What kind of object is it?"],
}


class Fact(NamedTuple):
    """One thing to ask: its kind, the parameter meant, what the documentation says, and the answer in a sentence."""

    kind: str
    item: str
    value: str
    answer: str


def listed(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def explained(description: str) -> str:
    """Return the end of a sentence with a description, which is left out if it is long."""
    return f": {description.removesuffix('.')}." if 0 < len(description) <= LONGEST_FACT else "."


def facts(row: Row, docstring: Docstring) -> Iterator[Fact]:
    """Yield what can be asked about a documented object."""
    sections = docstring.sections
    names = [name.strip() for item in sections["Parameters"] for name in item.name.split(",")]
    if 0 < len(names) <= MOST_NAMES:
        yield Fact("parameters", "", ", ".join(names), f"It takes {listed(names)}.")
    if len(sections["Returns"]) == 1 and (returned := sections["Returns"][0]).bare_type:
        more = explained(returned.description)
        yield Fact("returns", "", returned.bare_type + more, f"It returns {returned.bare_type}{more}")
    if raised := sections["Raises"]:
        more = explained(raised[0].description if len(raised) == 1 else "")
        named = listed(list(dict.fromkeys(item.name for item in raised)))
        yield Fact("raises", "", named + more, f"It raises {named}{more}")
    for item in sections["Parameters"]:
        if item.default and "," not in item.name:
            value = f"{item.name} = {item.default}"
            yield Fact("default", item.name, value, f"The default of {item.name} is {item.default}.")
        if item.bare_type not in ("", "Ignored") and "," not in item.name:
            kind = "one of" if item.bare_type.startswith("{") else "of type"
            value = f"{item.name} : {item.bare_type}"
            yield Fact("type", item.name, value, f"{item.name} is {kind} {item.bare_type}.")
    # One of these two, which every object has, or they would be half of all that is asked.
    if choose(f"{row['module']}{row['name']}", [True, False]):
        yield Fact("module", "", row["module"], f"It is in {row['module']}.")
    else:
        owner = f" of the class {row['name'].rpartition('.')[0]}" if row["kind"] == "method" else ""
        yield Fact("kind", "", f"a {row['kind']}{owner}", f"It is a {row['kind']}{owner}.")


def dialogue(path: str, row: Row, docstring: Docstring, asked: list[Fact], system: str) -> list[dict[str, str]]:
    """Return messages; ``system`` is none, plain, or documentation, which holds what the answers say."""
    messages = []
    if system == "plain":
        messages.append(("system", choose(f"{path}system", SYSTEM).format(library=row["library"])))
    elif system == "documentation":
        lines = [f"{fact.kind}: {fact.value}" for fact in asked]
        messages.append(("system", "\n".join([f"Documentation of `{path}`:", docstring.summary, *lines])))
    messages += [("user", choose(f"{path}first", FIRST).format(path=path)), ("assistant", docstring.summary)]
    for fact in asked:
        question = choose(f"{path}{fact.kind}phrase", PHRASES[fact.kind]).format(item=fact.item)
        messages += [("user", question), ("assistant", fact.answer)]
    return [{"role": role, "content": content} for role, content in messages]


def examples(corpus: Path, *, max_characters: int) -> list[Example]:
    """Return dialogues: what an object does, then up to two follow-up questions on its docstring.

    One third have a system message that holds the documentation, one third a plain system message, one third none.

    Args:
        max_characters: of all messages together; a longer dialogue loses its system message first, then its last turns.
    """
    kept = []
    for name, row, docstring in documented(corpus, LONGEST_SUMMARY):
        if any(part.startswith("_") for part in row["name"].split(".")):
            continue
        path = f"{row['module']}.{row['name']}"
        shuffled = sorted(facts(row, docstring), key=lambda fact: hash_order(f"{name}{fact.kind}{fact.item}"))
        by_kind = {fact.kind: fact for fact in shuffled}
        asked = sorted(by_kind.values(), key=lambda fact: hash_order(f"{name}{fact.kind}"))
        turns = choose(f"{name}turns", FOLLOW_UPS)
        system = choose(f"{name}system", ["none", "plain", "documentation"])
        attempts = [(turns, system), *((fewer, "none") for fewer in range(turns, -1, -1))]
        dialogues = [dialogue(path, row, docstring, asked[:kept], kind) for kept, kind in attempts]
        fitting = (one for one in dialogues if sum(len(message["content"]) for message in one) <= max_characters)
        if messages := next(fitting, None):
            kept.append(Example(name, {"messages": messages}, row["group"], row["split"]))
    return capped(kept)
