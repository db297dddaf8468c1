"""The rows of each task: their formats, what makes one like another, and what is written of them.

What a scenario of a task may configure is in config/tasks.py, how answers are scored in evaluation/metrics.py.
"""

import re
from typing import Any

from snaketune.data.examples import Fields
from snaketune.data.formats import CONVERSATIONS, Format, beyond_texts, exchange, label, words
from snaketune.data.raw_rows import Cell, Cells, Fault, describe, text
from snaketune.data.tools_and_calls import text_with_calls


class Task:
    """What the rows of most tasks have in common; a task overrides what differs."""

    rows_are: str
    """For the model card."""
    # The first format whose keys are all in the first row is the format of all rows.
    formats: tuple[Format, ...]
    main = "text"
    """The field that rows of different splits must not share: its text is the default group."""
    answer = ""
    """The field that a generated answer is scored against."""
    labels_are = ""
    """What the labels of rows are called; each must occur in training."""

    def main_text(self, fields: Fields) -> str:
        return str(fields[self.main])

    def default_group(self, fields: Fields) -> str:
        return self.main_text(fields).lower()

    def parts(self, fields: Fields) -> tuple[str, ...]:
        """Return the texts that are compared: rows are duplicates if each part is like the other's."""
        return (self.main_text(fields),)

    def texts(self, fields: Fields) -> list[str]:
        """Return all texts that a model would read or write."""
        return [one for value in fields.values() for one in (value if isinstance(value, list) else [value])]

    def empty(self, fields: Fields) -> list[str]:
        """Name the fields that are empty."""
        return [name for name, value in fields.items() if not value]

    def labels(self, fields: Fields) -> list[str]:
        """Return the labels or entity types of a row, one for each that it has."""
        return []

    def question_and_answer(self, fields: Fields) -> tuple[Any, Any]:
        """Return what is asked and the only right answer; None and None if several may be right."""
        return None, None

    def for_templates(self, fields: Fields) -> dict[str, str]:
        """Return what the templates `prompt` and `answer` of a scenario may hold."""
        return fields

    def reference(self, fields: Fields) -> Any:
        """Return what a generated answer is scored against."""
        return fields[self.answer]

    def written(self, fields: Fields, prompt: str, answer: str) -> dict[str, Any]:
        """Return the row as it is written: messages with a reference, or a text."""
        filled = self.for_templates(fields)
        messages = exchange(prompt.format(**filled), answer.format(**filled))
        return {"messages": messages, "reference": self.reference(fields)}


def _texts(cells: Cells) -> Fields:
    return {key: text(cell) for key, cell in cells.items()}


def _labelled(cells: Cells) -> Fields:
    return {"text": text(cells["text"]), "label": label(cells["label"])}


class Classification(Task):
    rows_are = "a text, and its label as the answer"
    answer = "label"
    formats = (Format("text + label", ("text", "label"), _labelled),)
    labels_are = "label"

    def labels(self, fields: Fields) -> list[str]:
        return [fields["label"]]

    def question_and_answer(self, fields: Fields) -> tuple[Any, Any]:
        return fields["text"].lower(), fields["label"]


def _tagged(cells: Cells) -> Fields:
    tokens, tags = words(cells["tokens"]), words(cells["tags"])
    if len(tokens) != len(tags):
        raise Fault(cells["tags"].name, f"expected one tag for each of {len(tokens)} tokens, found {len(tags)}")
    for number, (before, tag) in enumerate(zip(["O", *tags], tags, strict=False)):
        name = f"{cells['tags'].name}[{number}]"
        if not re.fullmatch(r"O|[BI]-[^\s:;]+", tag):
            raise Fault(name, f"expected O, B-… or I-… (BIO), found {tag!r}")
        if tag.startswith("I-") and before[2:] != tag[2:]:
            raise Fault(name, f"expected B-{tag[2:]} where an entity begins, found {tag!r} after {before!r}")
    return {"tokens": tokens, "tags": tags}


class Tagging(Task):
    rows_are = "a sentence, and its entities with their types as the answer"
    formats = (Format("tokens + tags", ("tokens", "tags"), _tagged),)
    labels_are = "entity type"

    def main_text(self, fields: Fields) -> str:
        return " ".join(fields["tokens"])

    def texts(self, fields: Fields) -> list[str]:
        return [" ".join(fields["tokens"]), " ".join(fields["tags"])]

    def entities(self, fields: Fields) -> list[tuple[str, str]]:
        """Return the words and the type of each entity in a sentence with BIO tags."""
        found: list[tuple[str, str]] = []
        for token, tag in zip(fields["tokens"], fields["tags"], strict=True):
            if tag.startswith("B-"):
                found.append((token, tag[2:]))
            elif tag.startswith("I-"):
                found[-1] = (f"{found[-1][0]} {token}", found[-1][1])
        return found

    def labels(self, fields: Fields) -> list[str]:
        return [kind for _, kind in self.entities(fields)]

    def question_and_answer(self, fields: Fields) -> tuple[Any, Any]:
        return tuple(fields["tokens"]), tuple(fields["tags"])

    def for_templates(self, fields: Fields) -> dict[str, str]:
        entities = "; ".join(f"{entity}: {kind}" for entity, kind in self.entities(fields)) or "none"
        return {"sentence": self.main_text(fields), "entities": entities}

    def reference(self, fields: Fields) -> Any:
        return fields


class Translation(Task):
    rows_are = "a text, and its translation as the answer"
    main = "source"
    answer = "target"
    formats = (Format("source + target", ("source", "target"), _texts, ("language",)),)

    def parts(self, fields: Fields) -> tuple[str, ...]:
        # A name may be the same in two languages, so the language is compared separately.
        return f"{fields['source']} {fields['target']}", fields.get("language", "")

    def empty(self, fields: Fields) -> list[str]:
        return [name for name in ("source", "target") if not fields[name]]

    def for_templates(self, fields: Fields) -> dict[str, str]:
        return {"language": "", **fields}


def _answered(cells: Cells) -> Fields:
    context, question, (answers, name) = text(cells["context"]), text(cells["question"]), cells["answers"]
    if isinstance(answers, dict):
        if "text" not in answers:
            raise Fault(name, f"expected the key text, found {describe(answers)}")
        answers, name = answers["text"], f"{name}.text"
    if isinstance(answers, str) or answers is None:
        answers = [answers]
    if not isinstance(answers, list):
        raise Fault(name, f"expected a string or a list of strings, found {describe(answers)}")
    spans = [span for number, one in enumerate(answers) if (span := text(Cell(one, f"{name}[{number}]")))]
    if outside := next((span for span in spans if span not in context), None):
        raise Fault(name, f"expected a part of the context, found {describe(outside)}")
    return {"context": context, "question": question, "answers": list(dict.fromkeys(spans))}


class QuestionAnswering(Task):
    rows_are = "a passage with a question, and a part of the passage as the answer"
    main = "context"
    answer = "answers"
    formats = (Format("context + question + answers", ("context", "question", "answers"), _answered),)

    def parts(self, fields: Fields) -> tuple[str, ...]:
        # Many questions may be about one passage, so the question and its answer are compared separately.
        return f"{fields['question']} {next(iter(fields['answers']), '')}", fields["context"]

    def question_and_answer(self, fields: Fields) -> tuple[Any, Any]:
        return (fields["question"], fields["context"]), tuple(sorted(fields["answers"]))

    def for_templates(self, fields: Fields) -> dict[str, str]:
        return {**fields, "answer": fields["answers"][0]}


class Chat(Task):
    rows_are = "a conversation whose last turn is the assistant's"
    formats = CONVERSATIONS

    def main_text(self, fields: Fields) -> str:
        # Many conversations may begin with the same system message, so it isn't compared.
        return "\n".join(text_with_calls(message) for message in fields["messages"] if message["role"] != "system")

    def texts(self, fields: Fields) -> list[str]:
        return [text_with_calls(message) for message in fields["messages"]]

    def empty(self, fields: Fields) -> list[str]:
        return [message["role"] for message in fields["messages"] if not text_with_calls(message).strip()]

    def written(self, fields: Fields, prompt: str, answer: str) -> dict[str, Any]:
        return {**fields, "reference": text_with_calls(fields["messages"][-1])}


class LanguageModeling(Task):
    rows_are = "a text"
    formats = (Format("text", ("text",), _texts),)

    def written(self, fields: Fields, prompt: str, answer: str) -> dict[str, Any]:
        return {"text": fields["text"]}


def _single_turn(fields: Fields, name: str) -> Fields:
    messages = fields["messages"]
    if more := beyond_texts(fields):
        raise Fault(name, f"expected texts only, found {more}; task: chat takes it")
    if [message["role"] for message in messages] != ["user", "assistant"]:
        roles = ", ".join(message["role"] for message in messages)
        raise Fault(name, f"expected one user and one assistant turn, found {roles}; task: chat takes more"[:160])
    return {"prompt": messages[0]["content"], "completion": messages[1]["content"]}


def _with_single_turns(form: Format) -> Format:
    return form._replace(build=lambda cells: _single_turn(form.build(cells), cells[form.keys[0]].name))


class Generation(Task):
    rows_are = "a prompt, and its completion as the answer"
    main = "completion"
    answer = "completion"
    # A prompt with its completion comes first: a row may also hold the conversation that they are from.
    formats = tuple(map(_with_single_turns, (*CONVERSATIONS[2:], *CONVERSATIONS[:2])))


TASKS: dict[str, Task] = {
    "classification": Classification(),
    "tagging": Tagging(),
    "translation": Translation(),
    "qa": QuestionAnswering(),
    "chat": Chat(),
    "language-modeling": LanguageModeling(),
    "generation": Generation(),
}
