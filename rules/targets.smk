"""Every file that the experiment asks for, by name: the contract of results/."""


def tuning_curves():
    return [
        f"results/tuning/{m}/{s}/{t}/{rate:g}/train.jsonl"
        for m in EXPERIMENT.models
        for s in EXPERIMENT.scenarios
        for t in MATRIX.techniques
        if t not in MATRIX.remote
        for rate in EXPERIMENT.learning_rate_grid
    ]


def cells():
    """(model, scenario, technique, seed) of every run, the untuned model first."""
    for model in EXPERIMENT.models:
        for scenario in EXPERIMENT.scenarios:
            yield model, scenario, "base", 0
            yield from ((model, scenario, name, seed) for name in MATRIX.techniques for seed in EXPERIMENT.seeds)


def every_run(pattern):
    return [pattern.format(model=m, scenario=s, technique=t, seed=n) for m, s, t, n in cells()]


def evaluations(suffix):
    return [
        f"{RUN.format(model=m, scenario=s, technique=t, seed=n)}/evaluation/{backend}{suffix}"
        for m, s, t, n in cells()
        for backend in ("torch", *map(backend_of, MATRIX.precisions_of(t)))
    ]


def parities():
    """Without an export there is nothing to compare with its parent."""
    return every_run(f"{RUN}/parity.json") if EXPERIMENT.precisions else []


def benchmarks():
    """Of the runs that end with a merged model."""
    runs = [cell for cell in cells() if EXPERIMENT.benchmark and cell[2] in MERGED]
    return [f"{RUN.format(model=m, scenario=s, technique=t, seed=n)}/benchmark.json" for m, s, t, n in runs]


def property_runs(*names):
    return [path for run in MATRIX.property_runs for path in files_in(f"results/{property_run(*run)}", names)]


def round_before(wildcards):
    """A technique's own: were it measured again, the rounds after it must be too."""
    own = MATRIX.techniques[wildcards.technique].world_size
    run = (wildcards.technique, own, int(wildcards.round) - 1)
    return f"results/{property_run(*run)}/resources.json" if run in MATRIX.property_runs else []


def others_before(wildcards):
    """So that all techniques see the same drift of the machine, each has its turn before the next round."""
    before = [run for run in MATRIX.property_runs if run[2] == int(wildcards.round) - 1]
    return [f"results/{property_run(*run)}/resources.json" for run in before if run[0] != wildcards.technique]


def exported_runs(name):
    return [
        f"{RUN.format(model=m, scenario=s, technique=t, seed=n)}/onnx/{precision}/{name}"
        for m, s, t, n in cells()
        for precision in MATRIX.precisions_of(t)
    ]


def trained_runs(name):
    return [f"{RUN.format(model=m, scenario=s, technique=t, seed=n)}/{name}" for m, s, t, n in cells() if t != "base"]


def records_of_the_models():
    """Of a run that ends with a prefix, the base's own is that of its untuned run."""
    runs = [cell for cell in cells() if cell[2] in MERGED]
    return [f"{RUN.format(model=m, scenario=s, technique=t, seed=n)}/merged/manifest.json" for m, s, t, n in runs]


def every_file_of_the_models():
    made = [path for model in MATRIX.models for path in files_in(BASE.format(model=model), [*MODEL_FILES, *RECORDS])]
    for model in MATRIX.built:
        made += files_in(f"results/models/{model}", ["pretraining.json", "pretraining.jsonl"])
        made += files_in(f"results/models/{model}/tokenizer", [*TOKENIZER_FILES, *RECORDS])
    return made


def every_file_of_the_data():
    data = [
        path
        for s in MATRIX.scenarios
        for path in files_in(DATA.format(scenario=s), [*(f"{split}.jsonl" for split in SPLITS), "card.json", *RECORDS])
    ]
    tokens = [
        path
        for m, s in MATRIX.pairs
        for directory, names in ((TRAINING, TRAINING_FILES), (TEST, TEST_FILES))
        for path in files_in(directory.format(model=m, scenario=s), [*names, *RECORDS])
    ]
    corpus = files_in(CORPUS, ["documentation.jsonl", *RECORDS]) if MATRIX.uses_corpus else []
    return corpus + data + tokens


def every_file_of_the_runs():
    """Each contract file by name: Snakemake doesn't miss a deleted file that nobody asks for."""
    results = evaluations(".json") + evaluations(".predictions.jsonl") + parities()
    for model, scenario, technique, seed in cells():
        run = RUN.format(model=model, scenario=scenario, technique=technique, seed=seed)
        results.append(f"{run}/evaluation/torch.logits.safetensors")
        if technique != "base":
            weights = (
                files_in(f"{run}/adapter", ADAPTER_FILES)
                if MATRIX.techniques[technique].adapter
                else files_in(f"{run}/model", MODEL_FILES[:3])
            )
            results += weights + files_in(run, ["train.jsonl", "resources.json", *RECORDS])
            if MATRIX.techniques[technique].adapter:
                results.append(f"{run}/evaluation/adapter.logits.safetensors")
        beside = [PREFIX_FILE] if technique in PREFIXED else []
        if beside:
            results += files_in(f"{run}/prefix", [PREFIX_FILE, *RECORDS])
        elif EXPERIMENT.keep_intermediates:
            results += files_in(f"{run}/merged", [*MODEL_FILES, *RECORDS])
        for name in MATRIX.precisions_of(technique):
            if name != "fp32" or EXPERIMENT.keep_intermediates:
                made = GENAI_FILES if name in GENAI else ONNX_FILES
                results += files_in(f"{run}/onnx/{name}", [*made, *beside, *RECORDS])
    return results


def recorded():
    """What the manifest of all results names; logits are large, and follow from what is compared."""
    paths = files_in("results", named(MATRIX.record_recipe(list(cells()))))
    return [ancient(path) if path.endswith(".logits.safetensors") else path for path in paths]


def hosted_results():
    """Every file of the runs at hosted services that a row of the summary rests on."""
    return [
        f"results/{path}"
        for one in MATRIX.hosted_cells
        for path in dict.fromkeys((*hosted_files(one), *hosted_records(one)))
    ]


def intermediate(paths):
    return paths if EXPERIMENT.keep_intermediates else temp(paths)


def switched_runs(name):
    return [
        f"{RUN.format(model=m, scenario=s, technique=t, seed=n)}/onnx/adapter/{name}"
        for m, s, t, n in cells()
        if t in SWITCHED
    ]
