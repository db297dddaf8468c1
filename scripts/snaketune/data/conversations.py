"""Conversations, in any format that they come in, as messages, or as one prompt and its completion."""

from typing import Any

from snaketune.data.coerce import Fault, Names, Values, string, text
from snaketune.data.raw_rows import found

ROLES = {"system": "system", "user": "user", "assistant": "assistant"}
SHAREGPT_ROLES = ROLES | {"human": "user", "gpt": "assistant"}


def turns(value: Any, name: str) -> list[dict[str, str]]:
    """Messages in order: perhaps system, then user and assistant by turns, the assistant last."""
    if not isinstance(value, list):
        raise Fault(name, f"expected a list of messages, found {found(value)}")
    if not value:
        raise Fault(name, "expected messages, found an empty list")
    messages = [_turn(turn, f"{name}[{number}]") for number, turn in enumerate(value)]
    expected = "user"
    for number, message in enumerate(messages):
        role = message["role"]
        if role == "system" and number == 0:
            continue
        if role != expected:
            after = f" after {messages[number - 1]['role']}" if number else ""
            only = "; system may only be first" if role == "system" else ""
            raise Fault(f"{name}[{number}].role", f"expected {expected}{after}, found {role}{only}")
        expected = "assistant" if role == "user" else "user"
    if messages[-1]["role"] != "assistant":
        raise Fault(name, f"expected the assistant's turn last, found {messages[-1]['role']}")
    return messages


def _turn(turn: Any, name: str) -> dict[str, str]:
    if not isinstance(turn, dict):
        raise Fault(name, f"expected a message with role and content, found {found(turn)}")
    sharegpt = "from" in turn
    keys, roles = (("from", "value"), SHAREGPT_ROLES) if sharegpt else (("role", "content"), ROLES)
    for key in keys:
        if key not in turn:
            raise Fault(f"{name}.{key}", f"missing; the message has the keys {', '.join(turn) or 'none'}")
        if not string(turn[key], f"{name}.{key}").strip():
            raise Fault(f"{name}.{key}", f"expected a non-empty string, found {found(turn[key])}")
    role, content = (turn[key] for key in keys)
    if role not in roles:
        raise Fault(f"{name}.{keys[0]}", f"expected {', '.join(roles)}, found {role!r}")
    return {"role": roles[role], "content": content}


def pair(values: Values, names: Names) -> tuple[Any, Any]:
    """Prompt and completion, as strings or as lists of messages; both of the same kind."""
    prompt, completion = values["prompt"], values["completion"]
    if isinstance(prompt, list) != isinstance(completion, list):
        raise Fault(names["completion"], f"expected what prompt is, {found(prompt)}; found {found(completion)}")
    if isinstance(prompt, list):
        return prompt, completion
    return text(prompt, names["prompt"]), text(completion, names["completion"])


def alpaca(values: Values, names: Names) -> tuple[str, str]:
    parts = [text(values[key], names[key]) for key in ("instruction", "input") if key in values]
    return "\n".join(part for part in parts if part), text(values["output"], names["output"])


def chat_of(prompt: Any, completion: Any, names: Names) -> dict[str, Any]:
    if isinstance(prompt, list):
        return {"messages": turns([*prompt, *completion], f"{names['prompt']} + {names['completion']}")}
    pairs = (("user", prompt), ("assistant", completion))
    return {"messages": [{"role": role, "content": content} for role, content in pairs]}


def single_turn(messages: list[dict[str, str]], name: str) -> dict[str, str]:
    if [message["role"] for message in messages] != ["user", "assistant"]:
        roles = ", ".join(message["role"] for message in messages)
        raise Fault(name, f"expected one user and one assistant turn, found {roles}; task: chat takes more"[:160])
    return {"prompt": messages[0]["content"], "completion": messages[1]["content"]}


def generation_of(prompt: Any, completion: Any, names: Names) -> dict[str, str]:
    if isinstance(prompt, list):
        return single_turn(chat_of(prompt, completion, names)["messages"], names["prompt"])
    return {"prompt": prompt, "completion": completion}
