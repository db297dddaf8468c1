"""The options of the built-in corpora."""

from typing import NamedTuple

from pydantic import Field, PositiveInt

from snaketune.config.base import Strict


class AreasOptions(Strict):
    areas: dict[str, list[str]] = Field(min_length=2, description="label: modules whose docstrings get it")
    aliases: list[str] = Field(
        default_factory=list, description="words removed from the texts with the names of module and package"
    )
    max_characters: PositiveInt = 240
    min_characters: PositiveInt = 40


class DomainOptions(Strict):
    libraries: list[str] = Field(min_length=1, description="whose documentation is the domain")
    max_characters: PositiveInt = 400
    min_characters: PositiveInt = 80


class EntitiesOptions(Strict):
    max_words: PositiveInt = 30
    min_words: PositiveInt = 5


class QuestionsOptions(Strict):
    max_characters: PositiveInt = 300


class DialoguesOptions(Strict):
    max_characters: PositiveInt = 400


class NamesOptions(Strict):
    languages: dict[str, str] = Field(min_length=1, description="locale: name of the language in the prompt")


class TunesOptions(Strict):
    """Folk tunes in ABC notation."""

    max_characters: PositiveInt = 200


class Corpus(NamedTuple):
    """The task whose rows a corpus makes, and its options."""

    task: str
    options: type[Strict]
    from_documentation: bool = True
    """Return True if the corpus is made from the docstrings that the workflow collects; others bring their own text."""


# Each is a module of scripts/snaketune/corpora/.
BUILTIN = {
    "areas": Corpus("classification", AreasOptions),
    "domain": Corpus("language-modeling", DomainOptions),
    "entities": Corpus("tagging", EntitiesOptions),
    "names": Corpus("translation", NamesOptions, from_documentation=False),
    "questions": Corpus("qa", QuestionsOptions),
    "dialogues": Corpus("chat", DialoguesOptions),
    "tunes": Corpus("generation", TunesOptions, from_documentation=False),
}
DOCUMENTATION = {name for name, corpus in BUILTIN.items() if corpus.from_documentation}
