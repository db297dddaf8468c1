"""The experiments of the tests: one that only plans, and one that runs whole in minutes."""

from pathlib import Path

import yaml

from support.workspace import REPOSITORY, Workspace

UNTRAINED = {"techniques": ["full", "lora"], "seeds": [1], "precisions": ["fp32", "int8", "int4"]}

# Nobody downloads anything to plan: a hub model by its revision, the user's own rows.
OTHERS = {**UNTRAINED, "models": ["phi-4-mini-instruct"], "scenarios": ["mine"]}
MINE = {
    "description": "Route a ticket.",
    "task": "classification",
    "licence": "internal",
    "source": {"path": "data/tickets.jsonl"},
    "prompt": "Which team?\n{text}",
}
# Trained by others: a service, and a cluster's operator.
ELSEWHERE = {
    **OTHERS,
    "models": ["phi-3-mini-4k-instruct"],
    "techniques": ["hosted-openai-compatible", "kaito-lora"],
    "precisions": [],
    "publish": {"confirm": False},
}
TICKETS = "".join(f'{{"text": "ticket {i}", "label": "{"ab"[i % 2]}"}}\n' for i in range(60))

RUNS = "results/runs/test-phi3/test-areas"
TECHNIQUES = ["full", "lora", "qlora", "dora", "peft-ia3", "peft-prefix", "deepspeed", "zero3"]
# Made from the same parts, and run whole by the long tests.
FURTHER = ["qdora", "peft-vera", "zero2", "lora-zero3"]
# These train the same weights, so that at one learning rate they must agree.
ALL_WEIGHTS = ["full", "deepspeed", "zero2", "zero3"]
TWO_RANKS = ["zero2", "zero3", "lora-zero3"]

# Weights this small and hardly trained say nothing of what a real model loses to int8 and int4.
LOSSY = {"kl_divergence": 1.0, "smallest_metric_change": -1.0, "smallest_greedy_agreement": 0.0}
SMALL = {
    "models": ["test-phi3"],
    "scenarios": ["test-areas"],
    "techniques": TECHNIQUES,
    "seeds": [1],
    "training": {"epochs": 1, "batch_rows": 15, "checkpoint_steps": 3},
    "evaluation": {"speed_prompts": 3, "speed_tokens": 4, "bootstrap_samples": 200},
    "parity": {"budgets": {"onnx-fp32-int8": LOSSY, "onnx-fp32-int4": LOSSY}},
}
MODEL = {
    "description": "A Phi-3 for tests.",
    "licence": "MIT",
    "build": {
        "vocabulary": 1024,
        "context": 256,
        "architecture": {
            "hidden_size": 64,
            "num_hidden_layers": 2,
            "intermediate_size": 128,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
        },
        "pretraining": {"tokens": 16000, "held_out_tokens": 2000, "threads": 2},
    },
}
AREAS = {
    "graph algorithms": ["networkx.algorithms"],
    "generators": ["networkx.generators"],
    "masked arrays": ["numpy.ma"],
    "polynomials": ["numpy.polynomial"],
}


def run_of(workspace: Workspace, technique: str = "lora") -> Path:
    return workspace.path / RUNS / technique / f"seed-{0 if technique == 'base' else 1}"


def technique_at(name: str, rate: float) -> dict[str, object]:
    content = yaml.safe_load((REPOSITORY / f"config/techniques/{name}.yaml").read_text())
    return {**content, "learning_rate": rate}


def small(path: Path, experiment: dict[str, object]) -> Workspace:
    """A workspace whose models, data and rates are small enough to run whole in minutes."""
    scenario = yaml.safe_load((REPOSITORY / "config/scenarios/classification.yaml").read_text())
    scenario["source"]["options"]["areas"] = AREAS
    scenario["rows_per_label"] = {"train": 30, "validation": 4, "test": 8}
    files = {
        "config/models/test-phi3.yaml": MODEL,
        "config/scenarios/test-areas.yaml": scenario,
        **{f"config/techniques/{name}.yaml": technique_at(name, 0.0003) for name in ALL_WEIGHTS},
    }
    workspace = Workspace.make(path, experiment, files)
    config = yaml.safe_load((workspace.path / "config/config.yaml").read_text())
    # A --configfile can only add to a mapping: the libraries are replaced in the file itself.
    config["corpus"]["libraries"] = {"networkx": "networkx", "numpy": "numpy"}
    workspace.write("config/config.yaml", config)
    return workspace
