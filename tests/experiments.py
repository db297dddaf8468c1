"""The experiments of the tests: one that only plans, and one that runs whole in minutes."""

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
TICKETS = "".join(f'{{"text": "ticket {i}", "label": "{"ab"[i % 2]}"}}\n' for i in range(60))

TECHNIQUES = ["full", "lora", "qlora", "dora", "peft-ia3", "deepspeed", "zero3"]
# These three train the same weights, so that at one learning rate they must agree.
ALL_WEIGHTS = ["full", "deepspeed", "zero3"]

SMALL = {
    "models": ["test-phi3"],
    "scenarios": ["test-areas"],
    "techniques": TECHNIQUES,
    "seeds": [1],
    "training": {"epochs": 1, "batch_rows": 15, "checkpoint_steps": 3},
    "evaluation": {"speed_prompts": 3, "speed_tokens": 4, "bootstrap_samples": 500},
    # Weights this small and hardly trained say nothing of what a real model loses to int8 and int4.
    "parity": {
        "budgets": {
            "onnx-fp32-int8": {"kl_divergence": 1.0, "smallest_metric_change": -1.0},
            "onnx-fp32-int4": {"kl_divergence": 1.0, "smallest_metric_change": -1.0},
        }
    },
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
        "pretraining": {"tokens": 60000, "held_out_tokens": 5000, "threads": 2},
    },
}
AREAS = {
    "graph algorithms": ["networkx.algorithms"],
    "generators": ["networkx.generators"],
    "masked arrays": ["numpy.ma"],
    "polynomials": ["numpy.polynomial"],
}
