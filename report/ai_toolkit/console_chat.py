"""Chat with the base model and the adapter trained in this project, a line each.

`python inference/console_chat.py "a question"` answers one; `--base-only` leaves the adapter out.
"""

import json
import sys
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

PROJECT = Path(__file__).resolve().parents[1]
sys.path.append(str(PROJECT / "finetuning"))
from snaketune.data.settled_template import settled_template  # noqa: E402  (is beside the training)

CONFIGURATION = json.loads((PROJECT / "finetuning/olive-config.json").read_text(encoding="utf-8"))
BASE = PROJECT / CONFIGURATION["input_model"]["model_path"]
TRAINED = PROJECT / CONFIGURATION["engine"]["output_dir"]

questions = [argument for argument in sys.argv[1:] if argument != "--base-only"]
tokenizer = AutoTokenizer.from_pretrained(BASE, trust_remote_code=False)
tokenizer.chat_template = settled_template(tokenizer)
model = AutoModelForCausalLM.from_pretrained(BASE, dtype="auto", use_safetensors=True, trust_remote_code=False)
if "--base-only" not in sys.argv:
    adapter = next((path.parent for path in sorted(TRAINED.rglob("adapter_config.json"))), None)
    if adapter is None:
        sys.exit(f"error: {TRAINED} holds no adapter: run finetuning/invoke_olive.py first, or give --base-only")
    model = PeftModel.from_pretrained(model, adapter)
model.to("cuda" if torch.cuda.is_available() else "cpu").eval()

messages = []
for question in questions or filter(None, map(str.strip, sys.stdin)):
    messages.append({"role": "user", "content": question})
    asked = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    with torch.no_grad():
        whole = model.generate(**asked.to(model.device), max_new_tokens=256, do_sample=False)
    answer = tokenizer.decode(whole[0, asked["input_ids"].shape[1] :], skip_special_tokens=True)
    messages.append({"role": "assistant", "content": answer})
    print(answer)
