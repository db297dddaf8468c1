"""Ask a hosted model the prompts of a scenario's test rows with greedy decoding; each answer is paid for once.

Answers are saved in --work as they arrive, so that an interrupted run asks only what is missing.
"""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any

from snaketune.core import cli, errors, files
from snaketune.core.errors import UserError
from snaketune.data.formats import beyond_texts
from snaketune.platforms.hosted.connect import connect
from snaketune.platforms.hosted.openai_service import answer, user_errors


def key_of(host: str, name: str, messages: list[dict[str, str]], recipe: dict[str, Any]) -> str:
    content = [host, name, messages, recipe["max_new_tokens"]]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def answers_so_far(path: Path) -> dict[str, dict[str, Any]]:
    """Return the answers of interrupted runs, whose last line may be cut."""
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        with suppress(ValueError, KeyError, TypeError):
            answer = json.loads(line)
            found[answer["key"]] = answer
    return found


def main() -> None:
    parser = cli.job_parser(
        __doc__, "service, max_new_tokens", "--rows", work="for the answers so far", output="answers, one a row"
    )
    parser.add_argument(
        "--model", type=Path, nargs="?", help="model.json of the tuned model; the base model if not given"
    )
    parser.add_argument("--requests-at-once", type=int, default=4)
    parser.add_argument("--confirm", action="store_true", help="without it nothing is sent")
    arguments = parser.parse_args()
    recipe = arguments.recipe
    if not arguments.confirm:
        raise UserError("nothing was asked: set publish: {confirm: true} in the experiment")

    rows = files.read_jsonl(arguments.rows)
    for number, row in enumerate(rows, start=1):
        if more := beyond_texts(row):
            raise UserError(f"{arguments.rows}, line {number}: services take text only, found {more}: leave it out")
    if not recipe["max_new_tokens"]:
        # A service's tokenizer isn't here, but a token has a byte or more.
        recipe["max_new_tokens"] = max(len(row["messages"][-1]["content"].encode()) for row in rows)
    files.claim(arguments.work)
    service = connect(recipe["service"])
    tuned = files.read_json(arguments.model)["model"] if arguments.model else None
    with user_errors(service.host):
        client, name = service.answerer(tuned)
    limit = {recipe["service"].get("answer_limit", "max_tokens"): recipe["max_new_tokens"]}
    asked = [[{key: turn[key] for key in ("role", "content")} for turn in row["messages"][:-1]] for row in rows]
    keys = [key_of(service.host, name, messages, recipe) for messages in asked]
    log = arguments.work / f"{keys[0][:12]}.jsonl"
    log.parent.mkdir(parents=True, exist_ok=True)
    found = answers_so_far(log)
    missing = {key: messages for key, messages in zip(keys, asked, strict=True) if key not in found}
    lock = Lock()
    with log.open("a", encoding="utf-8") as file, ThreadPoolExecutor(arguments.requests_at_once) as pool:
        # The last line may be cut: the next answer needs a line of its own.
        file.write("\n")

        def ask(key: str) -> None:
            found[key] = {"key": key, **answer(client, service.host, name, missing[key], limit)}
            with lock:
                file.write(json.dumps(found[key], ensure_ascii=False) + "\n")
                file.flush()

        try:
            for done in as_completed([pool.submit(ask, key) for key in missing]):
                done.result()
        except UserError:
            # What is under way is still saved; the rest isn't paid for.
            pool.shutdown(cancel_futures=True)
            raise
    files.write_jsonl(arguments.output, ({"id": row["id"], **found[key]} for key, row in zip(keys, rows, strict=True)))
    print(f"{name}: {len(rows)} answers, {len(missing)} of them new")


if __name__ == "__main__":
    errors.run(main)
