"""Chat with the model of this folder: `python run.py "a question"`, or line by line without a question."""

import json
import signal
import sys
from pathlib import Path

import onnxruntime_genai

signal.signal(signal.SIGINT, signal.SIG_DFL)
onnxruntime_genai.disable_telemetry_events()
# A console's code page lacks some characters.
sys.stdin.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
sys.stdout.reconfigure(encoding="utf-8", errors="replace")  # type: ignore[union-attr]
FOLDER = Path(__file__).resolve().parent
CONTEXT = json.loads((FOLDER / "genai_config.json").read_text(encoding="utf-8"))["model"]["context_length"]
MODEL = onnxruntime_genai.Model(str(FOLDER))
TOKENIZER = onnxruntime_genai.Tokenizer(MODEL)


def answer(messages: list[dict[str, str]]) -> str:
    """Print the answer to a conversation while it is generated."""
    prompt = TOKENIZER.encode(TOKENIZER.apply_chat_template(json.dumps(messages), add_generation_prompt=True))
    if len(prompt) >= CONTEXT:
        sys.exit(
            f"error: the conversation takes {len(prompt)} of the model's {CONTEXT} tokens: shorten it, or start a new one"
        )
    parameters = onnxruntime_genai.GeneratorParams(MODEL)
    # A shared buffer would be as long as the context from the start.
    parameters.set_search_options(max_length=CONTEXT, past_present_share_buffer=False)
    generator, stream, text = onnxruntime_genai.Generator(MODEL, parameters), TOKENIZER.create_stream(), ""
    generator.append_tokens(prompt)
    while not generator.is_done():
        generator.generate_next_token()
        text += (piece := stream.decode(generator.get_next_tokens()[0]))
        print(piece, end="", flush=True)
    print()
    if generator.token_count() >= CONTEXT:
        print(f"(cut off: the model's context of {CONTEXT} tokens is full)", file=sys.stderr)
    return text


MESSAGES: list[dict[str, str]] = []
if not sys.argv[1:] and sys.stdin.isatty():
    print("Type one question per line; end with Ctrl-D (Ctrl-Z on Windows).", file=sys.stderr)
for question in sys.argv[1:] or filter(None, map(str.strip, sys.stdin)):
    MESSAGES.append({"role": "user", "content": question})
    MESSAGES.append({"role": "assistant", "content": answer(MESSAGES)})
