"""The recipes of jobs that need more than a line: all that can change a result beside its inputs."""


def training_recipe(wildcards, rate=None):
    seed = int(wildcards.get("seed", EXPERIMENT.seeds[0]))
    return recipe("train.py", **MATRIX.training_recipe(wildcards.model, wildcards.technique, seed, rate))


def data_recipe(wildcards):
    source = MATRIX.scenarios[wildcards.scenario].source
    # The corpus is imported by name, which the script's own digest can't see.
    path = ROOT / f"scripts/snaketune/corpora/{source.builtin}.py"
    corpus = code_digest(path, ROOT / "scripts") if source.builtin else None
    return recipe(
        "prepare_data.py",
        **MATRIX.data_recipe(wildcards.scenario),
        source_digests=digests_of(source.paths),
        corpus_code=corpus,
    )


def digests_of(paths):
    """The content of the user's own files: their times may say anything (`cp -p`, `git checkout`)."""
    return {str(path): DIGESTS.of(Path(path)) for path in paths if path}


def model_recipe(wildcards):
    origin = MATRIX.models[wildcards.model].model_dump(include={"hub", "revision", "path"})
    return recipe("fetch_model.py", **origin, source_digests=digests_of(inputs.local_model(wildcards)))


def evaluation_recipe(wildcards, **values):
    return recipe("evaluate.py", **MATRIX.evaluation_recipe(wildcards.scenario), **values)


def package_recipe(wildcards):
    cell = (wildcards.model, wildcards.scenario, wildcards.technique, int(wildcards.seed))
    digests = {"template": file_digest(ROOT / CARD), "program": file_digest(ROOT / PROGRAM)}
    return recipe("package_model.py", **digests, **MATRIX.package_recipe(*cell))


def ai_toolkit_recipe(wildcards):
    model, scenario = MATRIX.models[wildcards.model], MATRIX.scenarios[wildcards.scenario]
    return recipe(
        "write_ai_toolkit.py",
        cell=[wildcards.model, wildcards.scenario, wildcards.technique, int(wildcards.seed)],
        training=MATRIX.training_recipe(wildcards.model, wildcards.technique, int(wildcards.seed)),
        model=model.model_dump(include={"hub", "revision", "licence"}),
        scenario=scenario.model_dump(include={"max_tokens", "licence"}),
        layers=sorted(LINEAR_LAYERS.get(model.model_type, [])),
        description=MATRIX.techniques[wildcards.technique].description,
        templates=[file_digest(ROOT / "report/ai_toolkit" / name) for name in project.TEMPLATES],
    )


def hosted_recipe(script, wildcards, **values):
    return recipe(
        script, "publish", **hosted_jobs.training_params(MATRIX, wildcards.technique, int(wildcards.seed)), **values
    )


def of_kaito(wildcards):
    return kaito_jobs.tuning_params(
        MATRIX, wildcards.model, wildcards.scenario, wildcards.technique, int(wildcards.seed)
    )


def received_recipe(wildcards):
    found = of_kaito(wildcards)
    return recipe(
        "receive_adapter.py",
        hub=found["hub"],
        options=found["training"]["adapter"]["options"],
        **MATRIX.merge_recipe(wildcards.technique),
    )


def serving_recipe(wildcards):
    cell = (wildcards.model, wildcards.scenario, wildcards.technique, int(wildcards.seed))
    return recipe("serve_on_kaito.py", "publish", **kaito_jobs.serving_params(MATRIX, *cell))


def switchable_recipe(wildcards):
    adapters = [MATRIX.techniques[name].adapter.model_dump() for name in MATRIX.switched]
    return recipe("export_base_for_adapters.py", environment="export", parts=parts_of_all(adapters))


def adapter_parity_recipe(wildcards):
    budget = EXPERIMENT.parity.budgets.get("merged-onnx-fp32")
    return recipe(
        "check_adapter.py",
        probe=PROBE,
        threads=EXPERIMENT.evaluation.threads,
        gate=EXPERIMENT.parity.gate,
        largest_logit_difference=budget and budget.largest_logit_difference,
    )
