"""What each job asks of a machine: from its recipe, its model's shape, and its rows where they are there.

Snakemake asks again before it submits a job: what was a bound while a model wasn't fetched or
rows weren't tokenized is exact by then. Resources re-run nothing.
"""

from snaketune.dag.estimates import NEEDS, UNKNOWN, Shape, adapter_parameters, megabytes, minutes
from snaketune.dag.estimates import training_bytes, training_seconds

FIGURES = {}
ROWS_UNKNOWN = 2000
# MB, measured: two of 140 start in every job of a cluster, whatever it then does.
SNAKEMAKES = 280


def figures_in(path):
    """A JSON file, or nothing where it isn't there yet; read once as long as it stays the same."""
    path = Path(path)
    try:
        key = (path, path.stat().st_mtime_ns)
        if key not in FIGURES:
            FIGURES[key] = json.loads(path.read_text())
        return FIGURES[key]
    except (OSError, ValueError):
        return {}


def shape_of(model):
    """From config/models/, the local model's or the fetched one's config.json; else of Phi-3-mini's size."""
    chosen = MATRIX.models[model]
    if chosen.build:
        built = chosen.build
        sizes = {"vocab_size": built.vocabulary, "max_position_embeddings": built.context, "tie_word_embeddings": True}
        return Shape.of({**built.architecture.model_dump(), **sizes})
    found = figures_in(f"{chosen.path or BASE.format(model=model)}/config.json")
    return Shape.of(found) if "num_attention_heads" in found else UNKNOWN


def rows_of(model, scenario):
    """Tokens of the longest row, and of all training rows; a bound while they aren't tokenized."""
    most = min(MATRIX.scenarios[scenario].max_tokens, shape_of(model).context)
    card = figures_in(f"{TRAINING.format(model=model, scenario=scenario)}/card.json")
    if not card:
        return most, most * ROWS_UNKNOWN
    longest = max(split["longest"] for split in card["splits"].values())
    return min(longest, most), card["splits"]["train"]["tokens"]


def training_of(wildcards):
    """Recipe, shape, longest row and tokens of a training job."""
    if "ranks" in wildcards.keys():
        model, scenario = EXPERIMENT.properties.model, EXPERIMENT.properties.scenario
        recipe = MATRIX.property_recipe(wildcards.technique, int(wildcards.ranks))
        longest = rows_of(model, scenario)[0]
        return recipe, shape_of(model), longest, recipe["steps"] * recipe["batch_rows"] * longest
    seed, rate = int(wildcards.get("seed", EXPERIMENT.seeds[0])), wildcards.get("rate")
    recipe = MATRIX.training_recipe(wildcards.model, wildcards.technique, seed, rate and float(rate))
    longest, tokens = rows_of(wildcards.model, wildcards.scenario)
    return recipe, shape_of(wildcards.model), longest, tokens * recipe["epochs"]


def training_gpus(wildcards):
    """One for each rank, where the profile says how many there are: `resources: [gpu=8]`."""
    counted = "gpu" in workflow.resource_settings.resources
    return training_of(wildcards)[0]["world_size"] if counted else 0


def nodes_of(rulename, **given):
    """From a cluster's profile; Snakemake itself lets no resource follow from another."""
    asked = workflow.get_rule(rulename).resources.get("nodes")
    return (asked and asked.evaluate(rulename=rulename, async_run=workflow.async_run, **given).value) or 1


def training_memory(wildcards, input, attempt, threads, rulename):
    """Of each node: SLURM asks it of all alike."""
    recipe, shape, longest, _ = training_of(wildcards)
    nodes = nodes_of(rulename, wildcards=wildcards, input=input, attempt=attempt, threads=threads)
    return rising(megabytes(training_bytes(recipe, shape, longest) / nodes), attempt)


def training_minutes(wildcards, attempt):
    recipe, shape, _, tokens = training_of(wildcards)
    adapter = adapter_parameters(shape, recipe["adapter"]) if recipe["adapter"] else 0
    cores = recipe["world_size"] * recipe["threads"]
    return attempt * minutes(training_seconds(shape.parameters + adapter, tokens, cores, training_gpus(wildcards)))


def pretraining_of(wildcards):
    """As training of all weights, and whether there is any."""
    recipe = MATRIX.pretraining_recipe(wildcards.model)
    engine = {"type": "torch", "zero_stage": 0, "offload": "none"}
    whole = {"adapter": None, "base_precision": "fp32", "engine": engine, "world_size": 1}
    return {"batch_rows": 1, "sequence_length": 1, **recipe, **whole}, shape_of(wildcards.model)


def pretraining_memory(wildcards, attempt):
    recipe, shape = pretraining_of(wildcards)
    needed = training_bytes({**recipe, "micro_batch_rows": recipe["batch_rows"]}, shape, recipe["sequence_length"])
    return rising(megabytes(needed + NEEDS["data"].memory), attempt)


def pretraining_minutes(wildcards, attempt):
    recipe, shape = pretraining_of(wildcards)
    return attempt * minutes(training_seconds(shape.parameters, recipe["tokens"], recipe["threads"]))


def rising(needed, attempt):
    """With what runs beside it; half as much more with each attempt: a job that was killed for its memory gets more."""
    return (needed + SNAKEMAKES) * (1 + attempt) // 2


def parameters_of(wildcards):
    """Of the model that a job loads: a service's own is nowhere here."""
    return shape_of(wildcards.model).parameters if wildcards.get("model") in MATRIX.models else 0


def memory_of(kind):
    return lambda wildcards, attempt: rising(megabytes(NEEDS[kind].bytes(parameters_of(wildcards))), attempt)


def minutes_of(kind):
    return lambda wildcards, attempt: attempt * minutes(NEEDS[kind].seconds(parameters_of(wildcards)))
