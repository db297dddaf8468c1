"""The gate drops what would spoil a result, counts it, and holds it against the budgets."""

import re
import time
from typing import Any

import numpy as np
import pytest

from snaketune.config.scenario import Scenario
from snaketune.config.templates import MARKUP
from snaketune.core.errors import UserError
from snaketune.core.layout import SPLITS
from snaketune.data import gate
from snaketune.data.examples import Example
from snaketune.data.findings import Count, Findings
from snaketune.data.near_duplicates import Duplicates
from snaketune.data.pii import masked, personal_data

NEAR = {"threshold": 0.6, "permutations": 64}


def scenario(task: str = "classification", source: dict[str, Any] | None = None, **other: Any) -> dict[str, Any]:
    content = {"task": task, "source": source or {"path": "a.jsonl"}} | other
    return Scenario.model_validate(content).model_dump()


def words(seed: int, count: int = 12) -> str:
    """A text that shares no three words in a row with that of another seed."""
    return " ".join(f"w{n}" for n in np.random.default_rng(seed).integers(0, 10**6, count))


def row(number: int, split: str = "train", text: str | None = None, label: str | None = None) -> Example:
    fields = {"text": words(number) if text is None else text, "label": label or "ab"[number % 2]}
    return Example(str(number), fields, str(number), split, given_split=split, where=f"a.jsonl:{number}")


def splits() -> list[Example]:
    return [row(n, "train" if n < 60 else "validation" if n < 80 else "test") for n in range(100)]


def paraphrase(text: str) -> str:
    return " ".join([*text.split()[:-1], "otherwise"])


# Letters of scripts without spaces: one of 44 is changed; of the others one word of 40.
SCRIPTS = {
    "Chinese": "雪鸟火风日月木河桥城花鱼马的金山云羊车雨",
    "Japanese": "あいうえおかきくけこ雪鳥火風日月アイウエ",
    "Thai": "กขคงจฉชซดตถทธนบปผพฟม",
    "Khmer": "កខគឃងចឆជឈញដឋឌឍណតថទធន",
    "Hindi": "राजधानी दिल्ली पुस्तक हिन्दी शहर नदी पेड़ खिड़की",
    "Russian": "снег птица огонь ветер день луна дерево река",
    "Arabic": "كتاب مدينة نهر شجرة نافذة بيت قمر شمس",
    "Korean": "눈이 새가 불을 바람 하루 달빛 나무 강물",
}


@pytest.mark.parametrize("language", SCRIPTS)
def test_a_leak_is_found_in_any_script(language: str) -> None:
    spaced = " " in SCRIPTS[language]
    parts = SCRIPTS[language].split() if spaced else list(SCRIPTS[language])
    texts = np.random.default_rng(1).choice(parts, (20, 40 if spaced else 44)).tolist()
    changed = [[*text[:14], "other" if spaced else "的", *text[15:]] for text in texts]
    joined = [(" " if spaced else "").join(text) for text in texts + changed]
    _, findings = gate.filter_rows(
        [row(n, "train" if n > 19 else "test", text) for n, text in enumerate(joined)], scenario()
    )
    assert (findings.counts["leaks"].rows, findings.counts["leaks"].of) == (20, 20)


@pytest.mark.parametrize(
    ("odd", "shown"),
    [
        ("spam\u200b", r"'spam\u200b', like 'spam'"),
        ("\ufeffspam", r"'\ufeffspam', like 'spam'"),
        ("sp am", "'sp am', like 'spam'"),
        ("sp\u00a0am", r"'sp\xa0am', like 'spam'"),
        ("\uff53pam", r"'\uff53pam', like 'spam'"),
    ],
)
def test_labels_that_look_alike_are_named_and_judged(odd: str, shown: str) -> None:
    rows = splits()
    for one in rows:
        one.fields["label"] = odd if one.id in ("3", "5") else "spam" if int(one.id) % 2 else "Spam"
    _, findings = gate.filter_rows(rows, scenario())
    assert (findings.counts["labels"].rows, findings.counts["labels"].of) == (2, 100)
    assert sorted(findings.figures()["labels"]["places"]) == [f"a.jsonl:{n} ({shown})" for n in (3, 5)]
    with pytest.raises(UserError, match="labels: 2 of 100 rows have a label that differs from another by spaces"):
        gate.judge(findings, scenario())


def test_entity_types_that_look_alike_are_named() -> None:
    tags = ["B-caf\u00e9", "B-caf\u00e9", "B-cafe\u0301"]
    rows = [Example(str(n), {"tokens": ["a"], "tags": [tag]}, str(n), "train") for n, tag in enumerate(tags)]
    _, findings = gate.filter_rows(rows, scenario("tagging"))
    assert findings.counts["labels"].places == [r"2 ('cafe\u0301', like 'caf\xe9')"]


def test_a_row_that_leaks_twice_counts_once() -> None:
    rows = splits()
    twice = [row(1000 + n, text=rows[-1].fields["text"] + " more" * n) for n in range(2)]
    _, findings = gate.filter_rows(rows + twice, scenario())
    assert (findings.counts["leaks"].rows, findings.counts["leaks"].of) == (1, 40)
    assert findings.dropped == {"like a row of validation or test": 2}


def test_where_the_splits_are_ours_a_copy_is_no_leak_but_dropped_from_training() -> None:
    rows = splits()
    rows.append(row(1000, text=rows[-1].fields["text"]))
    for one in rows:
        one.given_split = ""
    kept, findings = gate.filter_rows(rows, scenario())
    assert findings.counts["leaks"].rows == 0
    assert findings.dropped == {"duplicate of a kept row": 1}
    assert "1000" not in {one.id for one in kept}


def test_a_row_like_a_training_row_of_its_group_leaks_once_and_a_group_is_shown_masked() -> None:
    rows = splits()
    rows[-1].group = rows[-2].group = rows[0].group = "jane.roe@firm.de"
    rows[1].fields["text"] = rows[-1].fields["text"]
    _, findings = gate.filter_rows(rows, scenario())
    assert sorted(findings.counts["leaks"].places) == [
        "a.jsonl:98 shares group 'j…@f…' with a.jsonl:0",
        "a.jsonl:99 is like a.jsonl:1",
    ]


def test_groups_that_the_texts_make_or_in_splits_made_here_are_no_leaks() -> None:
    questions = [question(n, words(n), "north") for n in range(20)]
    for number, one in enumerate(questions):
        one.group, one.split = CONTEXT.lower(), "test" if number % 2 else "train"
        one.given_split = one.split
    assert gate.filter_rows(questions, scenario("qa"))[1].counts["leaks"].rows == 0
    rows = splits()
    for one in rows:
        one.group = "one"
        one.given_split = ""
    assert gate.filter_rows(rows, scenario())[1].counts["leaks"].rows == 0


def test_duplicates_and_leaks_of_a_builtin_corpus_are_counted_not_judged() -> None:
    findings = Findings()
    for name in ("duplicates", "leaks"):
        findings.counts[name] = Count(9, 10, ["a"])
    verdict = gate.judge(findings, scenario("qa", {"builtin": "questions"}))
    assert verdict == {"verdict": "passed", "over_budget": [], "not_judged": ["duplicates", "leaks"]}


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ("one two three four five six", "one two three four five six", "exact"),
        ("one  two three four five six\n", "One TWO three four five six", "exact"),
        ("one two three four five six seven eight!", "one two three four five six seven eight", "near"),
        ("one two one two one two", "one two one two", "near"),
        ("3 + 4", "3 - 4", ""),
        ("What is 3 + 4?", "What is 3 - 4?", ""),
        ("x < 10 and y > 20", "x > 10 and y < 20", ""),
        ("one two three four five six seven", "one two three four five six eight", "near"),
        ("one two three four", "four three two one", ""),
        ("two words", "Two  words", "exact"),
        ("two words", "two word", ""),
        ("C++", "C#", ""),
        ("??", "!!", ""),
        ("??", "??", "exact"),
        ("caf\u00e9", "cafe\u0301", "exact"),
        ("one two", "one\u200b two\u00ad", "exact"),
        ("राम ने सीता को फल दिया", "सीता ने राम को फल दिया", ""),
        ("राम ने आज सीता को फल दिया", "राम ने आज सीता को फल दिए", "near"),
        ("今天天气很好", "今天天气很好。", "near"),
        ("今天天气很好", "好天气很今天", ""),
    ],
)
def test_short_texts_are_duplicates_only_where_they_are_the_same(one: str, other: str, alike: str) -> None:
    texts = Duplicates(**NEAR)
    assert texts.add((one,)) == ("", [])
    assert texts.add((other,))[0] == alike


@pytest.mark.parametrize("seed", range(3))
def test_near_duplicates_are_those_of_an_exact_search(seed: int) -> None:
    generator = np.random.default_rng(seed)
    texts = []
    for _ in range(60):
        text = [f"w{n}" for n in generator.integers(0, 1000, generator.integers(3, 40))]
        texts.append(text)
        changed = list(text)
        for place in generator.integers(0, len(text), generator.integers(0, 3)):
            changed[place] = "other"
        texts.append(changed)
    found, kept = Duplicates(**NEAR), []
    for text in texts:
        grams = {tuple(text[i : i + 3]) for i in range(len(text) - 2)}
        expected = any(len(grams & other) >= 0.6 * len(grams | other) for other in kept)
        how, _ = found.add((" ".join(text),))
        assert bool(how) == expected
        if not how:
            kept.append(grams)


CONTEXT = "The old harbour of the town lies in the north and its new harbour lies in the south near the river."


def question(number: int, asked: str, answer: str, context: str = CONTEXT) -> Example:
    fields = {"question": asked, "answers": [answer], "context": context}
    return Example(str(number), fields, str(number), "train")


def test_questions_on_one_passage_are_no_duplicates_but_rephrased_ones_are() -> None:
    examples = [
        question(1, "Where does the old harbour of the town lie today?", "north"),
        question(2, "Near what does the new harbour lie?", "the river"),
        question(3, "Where does the old harbour of the town lie today?", "north", words(3, 20)),
        question(4, "So where does the old harbour of the town lie today?", "north", CONTEXT + " Yes."),
    ]
    kept, findings = gate.filter_rows(examples, scenario("qa"))
    assert len(kept) == 3
    assert {"1", "4"} - {one.id for one in kept}
    assert findings.dropped == {"near-duplicate of a kept row": 1}


def test_a_translation_that_is_the_same_in_two_languages_is_no_duplicate() -> None:
    rows = [
        Example(language, {"source": "Costa Rica", "target": "Costa Rica", "language": language}, "g", "train")
        for language in ("Spanish", "Portuguese", "spanish")
    ]
    kept, findings = gate.filter_rows(rows, scenario("translation"))
    assert len(kept) == 2
    assert findings.dropped == {"duplicate of a kept row": 1}


def chat(number: int, *contents: str) -> Example:
    roles = ["system", "user", "assistant"]
    messages = [{"role": role, "content": content} for role, content in zip(roles, contents, strict=True)]
    return Example(str(number), {"messages": messages}, str(number), "train")


def test_a_system_turn_that_all_share_makes_no_duplicates() -> None:
    examples = [chat(n, words(0, 100), words(n + 1), "Yes.") for n in range(5)]
    assert len(gate.filter_rows(examples, scenario("chat"))[0]) == 5


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"rows": (7, 3, 2)}, (7, 3, 2)),
        ({"rows_per_label": (7, 3, 2)}, (14, 6, 4)),
        ({"rows": (9, 9, 9), "rows_per_label": (6, 2, 1)}, (9, 4, 2)),
    ],
)
def test_each_split_and_each_label_of_it_has_its_limit(
    limits: dict[str, tuple[int, ...]], expected: tuple[int, ...]
) -> None:
    named = {key: dict(zip(SPLITS, rows, strict=True)) for key, rows in limits.items()}
    kept, findings = gate.filter_rows(splits(), scenario(**named))
    assert tuple(sum(one.split == split for one in kept) for split in SPLITS) == expected
    assert findings.dropped.total() == 100 - sum(expected)


def test_the_kept_rows_do_not_depend_on_the_order_of_the_rows() -> None:
    rows = splits()
    rows += [row(1000 + n, text=paraphrase(one.fields["text"])) for n, one in enumerate(rows[:30])]
    kept, findings = gate.filter_rows(rows, scenario())
    backwards, same = gate.filter_rows(rows[::-1], scenario())
    assert kept == backwards
    assert findings.figures() == same.figures()


def test_other_labels_of_a_text_are_counted_and_named() -> None:
    rows = [row(1, text="Same text", label="a"), row(2, text="same text", label="b"), row(3, label="b")]
    _, findings = gate.filter_rows(rows, scenario())
    assert findings.conflicts.rows == 1
    assert findings.conflicts.places == ["a.jsonl:2 and a.jsonl:1 ('a', 'b')"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("write to jane.roe@firm.co.uk.", [("e-mail address", "j…@f…")]),
        ("call +49 30 901820 now", [("phone number", "+49…")]),
        ("call +1 (415) 555-2671", [("phone number", "+1 …")]),
        ("key AKIAIOSFODNN7EXAMPLE", [("secret key", "AWS Access Key AK…")]),
        ("-----BEGIN RSA PRIVATE " + "KEY-----", [("secret key", "Private Key BE…")]),
        ("https://user:" + "hunter2@localhost/x", [("secret key", "Basic Auth Credentials hu…")]),
        ("ghp_" + "a1B2" * 9, [("secret key", "GitHub Token gh…")]),
        ("jane@example.com, root@localhost, a@b, x @ y.de", []),
        ("2 + 3 = 5, ISBN 978-3-16-148410-0, 1999-12-31, 555 2671", []),
        ("call 0049 30 901820 now", [("phone number", "004…")]),
        ("card 4111 1111 1111 1111, not 4111 1111 1111 1112", [("payment card number", "4111…")]),
        ("378282246310005 and 6011-1111-1111-1117", [("payment card number", s) for s in ("3782…", "6011…")]),
        ("卡号4111111111111111，no.4111111111111111", [("payment card number", "4111…")] * 2),
        ("汇到DE89370400440532013000吧", [("IBAN", "DE89…")]),
        ("拨打0049 30 901820吧", [("phone number", "004…")]),
        ("pi is 3.141592653589793, 1234567812345670 is no issuer's", []),
        ("to DE89 3704 0044 0532 0130 00 BIC COBADEFF", [("IBAN", "DE89…")]),
        ("GB82WEST12345698765432, NO9386011117947.", [("IBAN", "GB82…"), ("IBAN", "NO93…")]),
        ("DE88 3704 0044 0532 0130 00 and AB12CDEFGHIJKLMNOPQ", []),
        ("commit eb185aade064a813bc0b7f42de02595523103ca4 of 192.168.0.1", []),
        ("@np.vectorize and A@B.T", []),
        ("请写信给jane.roe@firm.de谢谢", [("e-mail address", "请…@f…")]),
        ("写jane@firm.de吧", [("e-mail address", "写…@f…")]),
        ("see _foo@corp.com_ now", [("e-mail address", "_…@c…")]),
        ("müller@corp.de", [("e-mail address", "m…@c…")]),
        ("AKC" + "a1B2c3D4e5", [("secret key", "Artifactory Credentials AK…")]),
        ("=AP" + "Ab1B2c3D4", [("secret key", "Artifactory Credentials =A…")]),
        ("xoxb" + "-12-ab", [("secret key", "Slack Token xo…")]),
        ("//r/:_authToken=" + "npm_abc", [("secret key", "NPM tokens np…")]),
        ("a" * 10**6 + "@", []),
    ],
)
def test_personal_data_are_found_and_masked(text: str, found: list[tuple[str, str]]) -> None:
    assert [(kind, shown) for kind, _, shown in personal_data(text)] == found


@pytest.mark.parametrize(
    ("region", "text"),
    [
        ("US", "call (415) 555-2671 or 415-555-2671"),
        ("DE", "030 12345678 oder 0171/2345678, auch 01712345678"),
        ("GB", "ring 020 7946 0958"),
        ("FR", "au 01 42 68 53 00"),
        ("BR", "ligue (11) 91234-5678"),
        ("JP", "電話03-1234-5678まで"),
    ],
)
def test_a_phone_number_is_found_as_its_region_writes_it(region: str, text: str) -> None:
    found = list(personal_data(text, [region]))
    assert {kind for kind, *_ in found} == {"phone number"}
    assert not re.search(r"\d{4}", masked(text, [region]))
    assert list(personal_data(text)) == []


def test_what_only_looks_like_a_phone_number_is_none() -> None:
    text = (
        "order 4155552671, 2024-01-15 10:30, 192.168.100.200, 0.1 0.2 0.3 0.45, ISBN 978-0-306-40615-7, 1234-5678-9012"
    )
    assert list(personal_data(text, ["US", "GB", "DE"])) == []


def test_numbers_of_phones_are_counted_in_the_regions_of_the_scenario() -> None:
    rows = [row(1, text="My number is (415) 555-2671, call me"), row(2), row(3)]
    for regions, counted in (({}, 1), ({"phone_regions": ["US"]}, 1), ({"phone_regions": ["DE"]}, 0)):
        assert gate.filter_rows(rows, scenario(**regions))[1].personal["phone number"].rows == counted
    with pytest.raises(UserError, match="phone_regions: XX isn't a region"):
        gate.filter_rows(rows, scenario(phone_regions=["US", "XX"]))


@pytest.mark.parametrize(
    "piece", ["//", "key ", "key" + " " * 50, "müller_", "sk-", "12:", "://a:", "4 ", "AB12", "012 345 "]
)
def test_personal_data_of_a_long_text_take_no_long_time(piece: str) -> None:
    list(personal_data("https://x:y@z"))  # imports and compiles
    began = time.process_time()
    list(personal_data(piece * (30_000 // len(piece)) + "@ +", ["US"]))
    assert time.process_time() - began < 2


def test_personal_data_are_masked_in_their_text() -> None:
    text = "Mail jane.roe@firm.de or jane.roe@firm.de, call +49 30 901820."
    assert masked(text) == "Mail j…@f… or j…@f…, call +49…."
    assert masked("sports") == "sports"


def test_personal_data_in_an_entity_type_are_refused() -> None:
    tagged = {"tokens": ["a", "b"], "tags": ["O", "B-jane.roe@firm.de"]}
    rows = [Example("7", tagged, "7", "train", where="a.jsonl:7")]
    with pytest.raises(UserError, match=r"a\.jsonl:7: entity type 'j…@f…' holds personal data"):
        gate.filter_rows(rows, scenario("tagging"))


def test_labels_of_the_hub_are_masked_in_places_and_messages() -> None:
    hub = scenario(source={"hub": "owner/name", "revision": "0" * 40}, gate="warn")
    rows = splits()
    for one in rows:
        one.fields["label"] = "jane.roe@firm.de" if one.split == "test" else "a"
    rows[0].fields = {"text": rows[-1].fields["text"], "label": "call +49 30 901820"}
    kept, findings = gate.filter_rows(rows, hub)
    assert findings.counts["majority"].places == ["'j…@f…'"]
    assert findings.conflicts.places == ["a.jsonl:99 and a.jsonl:0 ('call +49…', 'j…@f…')"]
    with pytest.raises(UserError, match="label 'j…@f…' is in test but in no training row"):
        gate.check_rows(kept, findings, hub)


def test_personal_data_are_counted_by_kind_and_shown_masked() -> None:
    rows = splits()
    rows[3].fields["text"] += " jane.roe@firm.de or +49 30 901820"
    _, findings = gate.filter_rows(rows, scenario())
    assert findings.counts["personal"].rows == 1
    shown = str(findings.figures())
    assert "a.jsonl:3 (e-mail address j…@f…, phone number +49…)" in shown
    assert "jane" not in shown
    assert "901820" not in shown


@pytest.mark.parametrize(
    "token",
    [
        "<|user|>", "<|im_start|>", "<|endoftext|>", "[INST]", "[/INST]", "<s>", "</s>", "<<SYS>>",
        "<start_of_turn>", "<｜User｜>", "[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[TOOL_CALLS]", "[PREFIX]", "[SUFFIX]",
        "[IMG]", "<|/tool|>", "<unk>", "<mask>", "<unused0>", "<unused99>", "<bos>", "<eos>", "<pad>",
    ],
)  # fmt: skip
def test_tokens_of_chat_formats_are_left_to_the_tokenizer_in_files_and_dropped_elsewhere(token: str) -> None:
    examples = [*splits(), row(1000, text=f"some {token} text")]
    assert len(gate.filter_rows(examples, scenario())[0]) == 101
    hub = {"hub": "owner/name", "revision": "0" * 40}
    kept, findings = gate.filter_rows(examples, scenario(source=hub))
    assert len(kept) == 100
    assert findings.dropped == {"token of a chat format": 1}


@pytest.mark.parametrize(
    "text", ["a | b", "x <| y |> z", "f <$> g", "<b>bold</b>", "[1]", "[instance]", "<S>", "[prefix]", "<unused>"]
)
def test_other_brackets_pass(text: str) -> None:
    assert not MARKUP.search(text)


def test_two_thousand_rows_take_seconds_at_most() -> None:
    rows = [row(number, text=words(number, 40)) for number in range(2000)]
    list(personal_data("https://x:y@z"))  # imports and compiles
    began = time.process_time()
    kept, _ = gate.filter_rows(rows, scenario())
    assert len(kept) == 2000
    assert time.process_time() - began < 4
