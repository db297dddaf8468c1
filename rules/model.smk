"""Base models: pre-trained here, or copied from the Hugging Face hub or a local directory.

Needs: results/corpus/, the network, or a local directory.
Makes: results/models/{model}/base/.
"""


rule train_tokenizer:
    input:
        corpus=f"{CORPUS}/manifest.json",
        text=ancient(f"{CORPUS}/documentation.jsonl"),
    output:
        files=files_in(TOKENIZER, TOKENIZER_FILES),
        manifest=f"{TOKENIZER}/manifest.json",
        provenance=f"{TOKENIZER}/provenance.json",
    log:
        "logs/train_tokenizer/{model}.log",
    benchmark:
        "logs/benchmarks/train_tokenizer/{model}.tsv"
    conda:
        "../envs/train/environment.yaml"
    threads: 2
    resources:
        mem_mb=needs.memory("data"),
        runtime=needs.minutes("data"),
    params:
        recipe=job_params.tokenizer,
        directory=subpath(output.manifest, parent=True),
    message:
        "Training the tokenizer of {wildcards.model}"
    shell:
        """
        python "$SNAKETUNE/scripts/train_tokenizer.py" \
            --recipe {params.recipe:q} \
            --corpus {input.text:q} \
            --output-directory {params.directory:q} \
            &> {log:q}
        """


rule pretrain_model:
    input:
        corpus=f"{CORPUS}/manifest.json",
        text=ancient(f"{CORPUS}/documentation.jsonl"),
        tokenizer=f"{TOKENIZER}/manifest.json",
        tokenizer_files=ancient(files_in(TOKENIZER, TOKENIZER_FILES)),
    output:
        base=files_in(BASE, MODEL_FILES),
        manifest=f"{BASE}/manifest.json",
        provenance=f"{BASE}/provenance.json",
        figures=f"{MODEL}/pretraining.json",
        curve=f"{MODEL}/pretraining.jsonl",
    log:
        "logs/pretrain_model/{model}.log",
    benchmark:
        "logs/benchmarks/pretrain_model/{model}.tsv"
    wildcard_constraints:
        model=one_of(MATRIX.built),
    conda:
        "../envs/train/environment.yaml"
    threads: needs.pretraining_cores
    resources:
        mem_mb=needs.pretraining_memory,
        runtime=needs.pretraining_minutes,
        gpu=needs.one_gpu,
    params:
        recipe=job_params.pretraining,
        python=job_params.on_gpu,
        tokenizer=subpath(input.tokenizer, parent=True),
        directory=subpath(output.figures, parent=True),
        work="work/pretraining/{model}",
        checkpoint_steps=not_a_trigger(job_params.pretraining_checkpoint_steps),
    message:
        "Pre-training {wildcards.model}"
    # On SIGTERM or SIGUSR1 the shell and tee stay alive until the training has saved its checkpoint.
    shell:
        """
        trap : TERM USR1
        {params.python} "$SNAKETUNE/scripts/pretrain_model.py" \
            --recipe {params.recipe:q} \
            --corpus {input.text:q} \
            --tokenizer-directory {params.tokenizer:q} \
            --output-directory {params.directory:q} \
            --work {params.work:q} \
            --checkpoint-steps {params.checkpoint_steps} \
            2>&1 | (trap '' TERM USR1; test -z "${{SNAKETUNE_TERMINAL-}}" || exec > /dev/null; tee {log:q})
        """


rule fetch_model:
    input:
        ancient(inputs.local_model),
    output:
        base=files_in(BASE, MODEL_FILES),
        manifest=f"{BASE}/manifest.json",
        provenance=f"{BASE}/provenance.json",
    log:
        "logs/fetch_model/{model}.log",
    benchmark:
        "logs/benchmarks/fetch_model/{model}.tsv"
    wildcard_constraints:
        model=one_of([name for name in MATRIX.models if name not in MATRIX.built]),
    retries: 2
    localrule: True
    conda:
        "../envs/train/environment.yaml"
    resources:
        mem_mb=needs.memory("fetch"),
        runtime=needs.minutes("fetch"),
    params:
        recipe=job_params.fetched_model,
        directory=subpath(output.manifest, parent=True),
        download=not_a_trigger(job_params.download),
    message:
        "Fetching {wildcards.model}{params.download}"
    shell:
        """
        python "$SNAKETUNE/scripts/fetch_model.py" \
            --recipe {params.recipe:q} \
            --output-directory {params.directory:q} \
            &> {log:q}
        """
