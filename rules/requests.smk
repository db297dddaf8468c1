"""Every file that targets other than `all` ask for, by name; where there is none, why.

Of a missing input Snakemake tells in one message, of an exception with a traceback, of a target
without any input in none: so the reason stands where a file would.
"""


def packages(wildcards):
    """Of the runs that end with a merged model."""
    if not SHIPPED:
        return f"package.precision: {EXPERIMENT.package.precision} is no genai precision of this experiment ({', '.join(GENAI) or 'it has none'}): add it to `precisions`, or name another"
    runs = [cell for cell in cells() if cell[2] in MERGED]
    return [f"{RUN.format(model=m, scenario=s, technique=t, seed=n)}/package/manifest.json" for m, s, t, n in runs]


def ai_toolkit_projects(wildcards):
    """Of the runs that Olive can train."""
    runs, reasons = [], {}
    for m, s, t, n in cells():
        if t != "base":
            layers = set(LINEAR_LAYERS.get(MATRIX.models[m].model_type, []))
            reasons[t] = olive_config.refusal(MATRIX.training_recipe(m, t, n), layers)
            runs += [] if reasons[t] else [RUN.format(model=m, scenario=s, technique=t, seed=n)]
    why = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
    return [f"{run}/ai-toolkit/manifest.json" for run in runs] or f"Olive can train no run of this experiment: {why}"


def hosted_plans():
    runs = ("runs/{}/{}/{}/seed-{}".format(*one["cell"]) for one in MATRIX.hosted_cells)
    return [
        f"results/{run}/plan.json" for run in runs
    ] or "no technique of this experiment is hosted: name one in `techniques`"


def kaito_runs(name):
    runs = [cell for cell in cells() if cell[2] in MATRIX.remote]
    return [
        f"{RUN.format(model=m, scenario=s, technique=t, seed=n)}/{name}" for m, s, t, n in runs
    ] or "no technique of this experiment has `platform: {type: kaito}`: name one in `techniques`"


def served_runs():
    runs = [cell for cell in cells() if cell[2] in SERVED]
    return [
        f"{RUN.format(model=m, scenario=s, technique=t, seed=n)}/kaito-serving/manifest.json" for m, s, t, n in runs
    ] or "`kaito` is missing in the experiment, or no technique of it trains LoRA"


def adapters_apart():
    names = [ADAPTER_FILE, *(f"parity-{name}.json" for name in ("fp32", *GENAI_AT_FP32))]
    if not EXPERIMENT.precisions:
        return "precisions: []: adapters are proven beside an exported base: name fp32"
    return [path for name in names for path in switched_runs(name)]
