"""What a run trained, turned into one plain transformers model, or into a prefix for its base model.

Needs: adapter/ or model/ of each run, the base that it was trained on, the tokens of the parity probe.
Makes: merged/ or prefix/ of each run.
"""


rule merge_adapter:
    input:
        base=inputs.trained_on,
        base_files=ancient(inputs.trained_on_files),
        trained=f"{RUN}/manifest.json",
        adapter=ancient(f"{RUN}/adapter/adapter_model.safetensors"),
        adapter_config=ancient(f"{RUN}/adapter/adapter_config.json"),
        tokens=f"{TEST}/manifest.json",
        rows=ancient(f"{TEST}/test.safetensors"),
    output:
        model=targets.intermediate(files_in(f"{RUN}/merged", MODEL_FILES)),
        manifest=f"{RUN}/merged/manifest.json",
        provenance=f"{RUN}/merged/provenance.json",
        logits=f"{RUN}/evaluation/adapter.logits.safetensors",
    log:
        "logs/merge/{model}/{scenario}/{technique}/seed-{seed}.log",
    benchmark:
        "logs/benchmarks/merge/{model}/{scenario}/{technique}/seed-{seed}.tsv"
    wildcard_constraints:
        technique=one_of([name for name in MATRIX.with_adapter if name in MATRIX.merged]),
    conda:
        "../envs/train/environment.yaml"
    threads: needs.rank_cores
    resources:
        mem_mb=needs.memory("merge"),
        runtime=needs.minutes("merge"),
    params:
        recipe=job_params.merge,
        base=subpath(input.base, parent=True),
        adapter=subpath(input.adapter, parent=True),
        tokens=subpath(input.tokens, parent=True),
        directory=subpath(output.manifest, parent=True),
    message:
        "Merging {wildcards.technique} of {wildcards.model} on {wildcards.scenario}"
    shell:
        """
        python "$SNAKETUNE/scripts/merge_adapter.py" \
            --recipe {params.recipe:q} \
            --base-directory {params.base:q} \
            --adapter-directory {params.adapter:q} \
            --tokens-directory {params.tokens:q} \
            --output-directory {params.directory:q} \
            --logits {output.logits:q} \
            &> {log:q}
        """


rule extract_prefix:
    input:
        base=f"{BASE}/manifest.json",
        base_files=ancient(files_in(BASE, MODEL_FILES)),
        trained=f"{RUN}/manifest.json",
        adapter=ancient(f"{RUN}/adapter/adapter_model.safetensors"),
        adapter_config=ancient(f"{RUN}/adapter/adapter_config.json"),
        tokens=f"{TEST}/manifest.json",
        rows=ancient(f"{TEST}/test.safetensors"),
    output:
        prefix=f"{RUN}/prefix/{PREFIX_FILE}",
        manifest=f"{RUN}/prefix/manifest.json",
        provenance=f"{RUN}/prefix/provenance.json",
        logits=f"{RUN}/evaluation/adapter.logits.safetensors",
    log:
        "logs/extract_prefix/{model}/{scenario}/{technique}/seed-{seed}.log",
    benchmark:
        "logs/benchmarks/extract_prefix/{model}/{scenario}/{technique}/seed-{seed}.tsv"
    wildcard_constraints:
        technique=one_of(MATRIX.prefixed),
    conda:
        "../envs/train/environment.yaml"
    threads: needs.rank_cores
    resources:
        mem_mb=needs.memory("merge"),
        runtime=needs.minutes("merge"),
    params:
        recipe=job_params.merge,
        base=subpath(input.base, parent=True),
        adapter=subpath(input.adapter, parent=True),
        tokens=subpath(input.tokens, parent=True),
        directory=subpath(output.manifest, parent=True),
    message:
        "Extracting the prefix of {wildcards.technique} of {wildcards.model} on {wildcards.scenario}"
    shell:
        """
        python "$SNAKETUNE/scripts/merge_adapter.py" \
            --recipe {params.recipe:q} \
            --base-directory {params.base:q} \
            --adapter-directory {params.adapter:q} \
            --tokens-directory {params.tokens:q} \
            --output-directory {params.directory:q} \
            --logits {output.logits:q} \
            &> {log:q}
        """


rule copy_model:
    input:
        base=f"{BASE}/manifest.json",
        base_files=ancient(files_in(BASE, MODEL_FILES)),
        trained=f"{RUN}/manifest.json",
        weights=ancient(f"{RUN}/model/model.safetensors"),
        configuration=ancient(f"{RUN}/model/config.json"),
    output:
        model=targets.intermediate(files_in(f"{RUN}/merged", MODEL_FILES)),
        manifest=f"{RUN}/merged/manifest.json",
        provenance=f"{RUN}/merged/provenance.json",
    log:
        "logs/merge/{model}/{scenario}/{technique}/seed-{seed}.log",
    benchmark:
        "logs/benchmarks/merge/{model}/{scenario}/{technique}/seed-{seed}.tsv"
    wildcard_constraints:
        technique=one_of([name for name in MATRIX.techniques if name not in MATRIX.with_adapter]),
    conda:
        "../envs/train/environment.yaml"
    resources:
        mem_mb=needs.memory("copy"),
        runtime=needs.minutes("copy"),
    params:
        recipe=job_params.encode("copy_model.py"),
        base=subpath(input.base, parent=True),
        trained=subpath(input.weights, parent=True),
        directory=subpath(output.manifest, parent=True),
    message:
        "Copying the trained weights of {wildcards.technique} of {wildcards.model} on {wildcards.scenario}"
    shell:
        """
        python "$SNAKETUNE/scripts/copy_model.py" \
            --recipe {params.recipe:q} \
            --base-directory {params.base:q} \
            --trained-directory {params.trained:q} \
            --output-directory {params.directory:q} \
            &> {log:q}
        """
