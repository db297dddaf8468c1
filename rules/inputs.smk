"""What a job reads, where that depends on its cell."""


def scenario_source(wildcards):
    """The user's files, or the corpus, of which only the manifest is compared; the hub has none."""
    source = MATRIX.scenarios[wildcards.scenario].source
    if source.builtin in DOCUMENTATION:
        return {"manifest": f"{CORPUS}/manifest.json", "source": ancient(f"{CORPUS}/documentation.jsonl")}
    return {"source": ancient(source.paths)}


def files_of_a_local_model(wildcards):
    path = MATRIX.models[wildcards.model].path
    return list(map(str, model_files(Path(path)))) if path else []


def record_of_a_run(wildcards):
    """The manifest of the model that a run ends with."""
    return f"{RUN}/{'prefix' if wildcards.technique in PREFIXED else 'merged'}/manifest.json"


def evaluated_model(wildcards):
    """A merged model; or, as a prefix can't be merged, the base that starts from it."""
    if wildcards.technique in PREFIXED:
        directory, prefix = BASE, [f"{RUN}/prefix/{PREFIX_FILE}"]
        manifests = [f"{BASE}/manifest.json", f"{RUN}/prefix/manifest.json"]
    else:
        directory, prefix, manifests = f"{RUN}/merged", [], [f"{RUN}/merged/manifest.json"]
    return {
        "manifests": manifests,
        "model": ancient(f"{directory}/model.safetensors"),
        "files": ancient(files_in(directory, MODEL_FILES[1:])),
        "prefix": ancient(prefix),
    }


def exported_prefix(wildcards):
    return f"{RUN}/onnx/{{precision}}/{PREFIX_FILE}" if wildcards.technique in PREFIXED else []


def exported_prefixes(wildcards):
    names = MATRIX.precisions_of(wildcards.technique) if wildcards.technique in PREFIXED else []
    return [f"{RUN}/onnx/{name}/{PREFIX_FILE}" for name in names]


def exports_used(wildcards):
    """Every export of a run; large files are compared by their manifests."""
    names = MATRIX.precisions_of(wildcards.technique)
    return {
        "manifests": [f"{RUN}/onnx/{name}/manifest.json" for name in names],
        "models": ancient(
            [path for name in names for path in files_in(f"{RUN}/onnx/{name}", files_read(name in GENAI))]
        ),
    }


def evaluations_of(wildcards):
    backends = ["torch", *map(backend_of, MATRIX.precisions_of(wildcards.technique))]
    return [f"{RUN}/evaluation/{name}{end}" for name in backends for end in (".json", ".predictions.jsonl")]


def calibration_tokens(wildcards):
    """Training rows, for a precision whose scales are found on them."""
    if not calibrates(MATRIX.export_recipe(wildcards.precision)):
        return []
    return [f"{TRAINING}/manifest.json", ancient(f"{TRAINING}/train.safetensors")]


def adapter_logits(wildcards):
    trained = MATRIX.techniques.get(wildcards.technique)
    return f"{RUN}/evaluation/adapter.logits.safetensors" if trained and trained.adapter else []


def tuned_elsewhere(wildcards):
    """The name of a hosted model; the untuned one has the technique's."""
    return [] if wildcards.part == "untuned" else f"{HOSTED}/{{part}}/model.json"


def told_of_training(wildcards):
    """What a model card says of how a model was trained; the untuned one wasn't."""
    return (
        [] if wildcards.technique == "base" else files_in(RUN, ["manifest.json", "provenance.json", "resources.json"])
    )
