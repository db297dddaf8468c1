"""Fine-tuning: one script, whose parameters name the adapter, the base precision and the engine.

Needs: results/models/{model}/base/ or dequantized/{precision}/, results/tokens/{model}/{scenario}/training/.
Makes: adapter/ or model/ of each run, with train.jsonl, resources.json, manifest.json and provenance.json.
"""


rule train_adapter:
    input:
        base=inputs.trained_on,
        weights=ancient(inputs.trained_on_files),
        tokens=f"{TRAINING}/manifest.json",
        rows=ancient(files_in(TRAINING, TRAINING_FILES)),
        start=ancient(inputs.started_from),
    output:
        weights=files_in(f"{RUN}/adapter", ADAPTER_FILES),
        curve=f"{RUN}/train.jsonl",
        resources=f"{RUN}/resources.json",
        manifest=f"{RUN}/manifest.json",
        provenance=f"{RUN}/provenance.json",
    log:
        "logs/train/{model}/{scenario}/{technique}/seed-{seed}.log",
    benchmark:
        "logs/benchmarks/train/{model}/{scenario}/{technique}/seed-{seed}.tsv"
    wildcard_constraints:
        technique=one_of([name for name in MATRIX.with_adapter if name not in MATRIX.remote]),
    # Start the longest jobs first; short ones fill the gaps.
    priority: needs.training_priority
    conda:
        "../envs/train/environment.yaml"
    threads: needs.training_cores
    resources:
        mem_mb=needs.training_memory,
        runtime=needs.training_minutes,
        gpu=needs.training_gpus,
    params:
        recipe=job_params.training,
        launcher=job_params.launcher,
        base=subpath(input.base, parent=True),
        tokens=subpath(input.tokens, parent=True),
        directory=subpath(output.manifest, parent=True),
        work="work/training/{model}/{scenario}/{technique}/seed-{seed}",
        checkpoint_steps=not_a_trigger(EXPERIMENT.training.checkpoint_steps),
        tracking=not_a_trigger(job_params.tracking),
    message:
        "Training {wildcards.technique} of {wildcards.model} on {wildcards.scenario}, seed {wildcards.seed}"
    # On SIGTERM or SIGUSR1 the shell and tee stay alive until the training has saved its checkpoint.
    shell:
        """
        trap : TERM USR1
        {params.launcher} "$SNAKETUNE/scripts/train.py" \
            --recipe {params.recipe:q} \
            --base-directory {params.base:q} \
            --tokens-directory {params.tokens:q} \
            --start-from {input.start:q} \
            --output-directory {params.directory:q} \
            --work {params.work:q} \
            --checkpoint-steps {params.checkpoint_steps} \
            {params.tracking:q} \
            2>&1 | (trap '' TERM USR1; test -z "${{SNAKETUNE_TERMINAL-}}" || exec > /dev/null; tee {log:q})
        """


use rule train_adapter as train_all_weights with:
    output:
        weights=files_in(f"{RUN}/model", MODEL_FILES[:3]),
        curve=f"{RUN}/train.jsonl",
        resources=f"{RUN}/resources.json",
        manifest=f"{RUN}/manifest.json",
        provenance=f"{RUN}/provenance.json",
    wildcard_constraints:
        technique=one_of([name for name in MATRIX.techniques if name not in MATRIX.with_adapter]),


use rule train_adapter as train_at_rate with:
    output:
        curve=f"{TUNING}/train.jsonl",
        resources=f"{TUNING}/resources.json",
    log:
        "logs/tune/{model}/{scenario}/{technique}/{rate}.log",
    benchmark:
        "logs/benchmarks/tune/{model}/{scenario}/{technique}/{rate}.tsv"
    wildcard_constraints:
        technique=one_of(MATRIX.techniques),
    params:
        recipe=job_params.training_at_rate,
        launcher=job_params.launcher,
        base=subpath(input.base, parent=True),
        tokens=subpath(input.tokens, parent=True),
        directory=subpath(output.curve, parent=True),
        work="work/tuning/{model}/{scenario}/{technique}/{rate}",
        checkpoint_steps=not_a_trigger(EXPERIMENT.training.checkpoint_steps),
        tracking=not_a_trigger(job_params.tracking),
    message:
        "Trying {wildcards.technique} of {wildcards.model} on {wildcards.scenario} at learning rate {wildcards.rate}"
