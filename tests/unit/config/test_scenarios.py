"""What the templates of a scenario may hold."""

from typing import Any

import pytest
from pydantic import ValidationError

from snaketune.config.corpora import BUILTIN
from snaketune.config.scenario import Scenario
from snaketune.config.tasks import TASKS
from snaketune.data import tasks
from snaketune.evaluation import metrics


def made(task: str = "classification", **other: Any) -> Scenario:
    return Scenario.model_validate({"task": task, "source": {"path": "a.jsonl"}} | other)


@pytest.mark.parametrize(
    ("template", "fault"),
    [
        ("no field", "prompt must contain {text}"),
        ("{{text}}", "prompt must contain {text}"),
        ("{{{text}}}", None),
        ("{text} {{label}}", None),
        ("{text} and {text}", None),
        ("{text} {label}", "prompt may contain only the fields {text}; write {{ and }} for literal braces"),
        ("{text} {}", "prompt may contain only the fields {text}"),
        ("{text} {0}", "prompt may contain only the fields {text}"),
        ("{text.__class__}", "prompt may contain only the fields {text}"),
        ("{text} {text[0]}", "prompt may contain only the fields {text}"),
        ("{text!r}", "prompt may contain only the fields {text}"),
        ("{text:>10}", "prompt may contain only the fields {text}"),
        ("{text:{text}}", "prompt may contain only the fields {text}"),
        ("{text", "prompt may contain only the fields {text}"),
        ("{text} }", "prompt may contain only the fields {text}"),
        ("<|user|>{text}", "prompt contains '<|user|>', which tokenizers read as a token of a chat format"),
        ("[INST] {text} [/INST]", "prompt contains '[INST]'"),
        ("<|{text}|>", "prompt contains '<|x|>'"),
    ],
)
def test_a_template_holds_the_fields_of_its_task_and_no_chat_markup(template: str, fault: str | None) -> None:
    if fault is None:
        assert made(prompt=template).prompt == template
        return
    with pytest.raises(ValidationError) as raised:
        made(prompt=template)
    assert fault in str(raised.value)


def test_an_answer_holds_no_chat_markup() -> None:
    with pytest.raises(ValidationError, match="answer contains '</s>'"):
        made(answer="{label}</s>")


def test_a_template_of_translation_may_leave_the_language_out() -> None:
    assert made("translation", prompt="{source}").prompt == "{source}"
    with pytest.raises(ValidationError, match=r"prompt may contain only the fields \{language\} and \{source\}"):
        made("translation", prompt="{source} {target}")


@pytest.mark.parametrize(("threshold", "permutations"), [(0.49, 64), (1.01, 64), (0.6, 31), (0.6, 0)])
def test_near_duplicates_need_bands_and_a_threshold_they_can_find(threshold: float, permutations: int) -> None:
    made(near_duplicates={"threshold": 0.5, "permutations": 32})
    with pytest.raises(ValidationError, match="near_duplicates"):
        made(near_duplicates={"threshold": threshold, "permutations": permutations})


def test_every_task_can_be_configured_read_and_scored() -> None:
    assert TASKS.keys() == tasks.TASKS.keys() == metrics.TASKS.keys()
    assert {corpus.task for corpus in BUILTIN.values()} <= TASKS.keys()
