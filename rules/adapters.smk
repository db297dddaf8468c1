"""One base that ONNX Runtime loads once, and a small file for each adapter that it switches to.

Needs: the fp32 export of the untuned model, adapter/ of each run, the tokens of the parity probe.
Makes: models/{model}/switchable/{precision}/; onnx/adapter/ of each run, with the proof that both
compute what the merged model does.
"""


rule export_switchable_base:
    input:
        base=f"{BASE}/manifest.json",
        export=f"{MODEL}/onnx/fp32/manifest.json",
        model=ancient(files_in(f"{MODEL}/onnx/fp32", ONNX_FILES)),
    output:
        model=files_in(f"{SWITCHABLE}/fp32", [*ONNX_FILES, INPUTS_FILE]),
        manifest=f"{SWITCHABLE}/fp32/manifest.json",
        provenance=f"{SWITCHABLE}/fp32/provenance.json",
    log:
        "logs/export_switchable_base/{model}/fp32.log",
    benchmark:
        "logs/benchmarks/export_switchable_base/{model}/fp32.tsv"
    conda:
        "../envs/export/environment.yaml"
    resources:
        mem_mb=needs.memory("quantize"),
        runtime=needs.minutes("quantize"),
    params:
        recipe=job_params.switchable_base,
        base=subpath(input.base, parent=True),
        export=subpath(input.export, parent=True),
        directory=subpath(output.manifest, parent=True),
    message:
        "Building {wildcards.model} for switchable adapters"
    shell:
        """
        python "$SNAKETUNE/scripts/make_environment.py" --lock "$SNAKETUNE/envs/export/requirements.txt" --unless optimum-onnx -- \
            "$SNAKETUNE/scripts/export_base_for_adapters.py" \
            --recipe {params.recipe:q} \
            --base-directory {params.base:q} \
            --model-directory {params.export:q} \
            --output-directory {params.directory:q} \
            &> {log:q}
        """


use rule export_switchable_base as export_switchable_genai with:
    input:
        base=f"{BASE}/manifest.json",
        export=f"{MODEL}/onnx/{{precision}}/manifest.json",
        model=ancient(files_in(f"{MODEL}/onnx/{{precision}}", GENAI_FILES)),
    output:
        model=files_in(f"{SWITCHABLE}/{{precision}}", [*GENAI_FILES, INPUTS_FILE]),
        manifest=f"{SWITCHABLE}/{{precision}}/manifest.json",
        provenance=f"{SWITCHABLE}/{{precision}}/provenance.json",
    log:
        "logs/export_switchable_base/{model}/{precision}.log",
    benchmark:
        "logs/benchmarks/export_switchable_base/{model}/{precision}.tsv"
    wildcard_constraints:
        precision=one_of(MATRIX.switchable[1:]),
    message:
        "Building {wildcards.precision} of {wildcards.model} for switchable adapters"


rule export_adapter:
    input:
        base=f"{BASE}/manifest.json",
        weights=ancient(f"{BASE}/model.safetensors"),
        switchable=f"{SWITCHABLE}/fp32/manifest.json",
        inputs=ancient(f"{SWITCHABLE}/fp32/{INPUTS_FILE}"),
        trained=f"{RUN}/manifest.json",
        adapter=ancient(f"{RUN}/adapter/adapter_model.safetensors"),
        adapter_config=ancient(f"{RUN}/adapter/adapter_config.json"),
    output:
        adapter=f"{RUN}/onnx/adapter/{ADAPTER_FILE}",
        manifest=f"{RUN}/onnx/adapter/manifest.json",
        provenance=f"{RUN}/onnx/adapter/provenance.json",
    log:
        "logs/export_adapter/{model}/{scenario}/{technique}/seed-{seed}.log",
    benchmark:
        "logs/benchmarks/export_adapter/{model}/{scenario}/{technique}/seed-{seed}.tsv"
    wildcard_constraints:
        technique=one_of(MATRIX.switched),
    conda:
        "../envs/train/environment.yaml"
    resources:
        mem_mb=needs.memory("merge"),
        runtime=needs.minutes("merge"),
    params:
        recipe=job_params.encode("export_adapter.py"),
        base=subpath(input.base, parent=True),
        switchable=subpath(input.switchable, parent=True),
        adapter=subpath(input.adapter, parent=True),
        directory=subpath(output.manifest, parent=True),
    message:
        "Exporting the adapter of {wildcards.technique} of {wildcards.model} on {wildcards.scenario}"
    shell:
        """
        python "$SNAKETUNE/scripts/export_adapter.py" \
            --recipe {params.recipe:q} \
            --base-directory {params.base:q} \
            --switchable-directory {params.switchable:q} \
            --adapter-directory {params.adapter:q} \
            --output-directory {params.directory:q} \
            &> {log:q}
        """


rule check_adapter:
    input:
        switchable=f"{SWITCHABLE}/{{precision}}/manifest.json",
        model=ancient(f"{SWITCHABLE}/{{precision}}/model.onnx"),
        files=ancient(f"{SWITCHABLE}/{{precision}}/model.onnx_data"),
        exported=f"{RUN}/onnx/adapter/manifest.json",
        adapter=ancient(f"{RUN}/onnx/adapter/{ADAPTER_FILE}"),
        merged=f"{RUN}/merged/manifest.json",
        evaluations=[f"{RUN}/evaluation/torch.json", f"{UNTUNED}/evaluation/torch.json"],
        logits=ancient(f"{RUN}/evaluation/torch.logits.safetensors"),
        untuned=f"{BASE}/manifest.json",
        untuned_logits=ancient(f"{UNTUNED}/evaluation/torch.logits.safetensors"),
        tokens=f"{TEST}/manifest.json",
        rows=ancient(f"{TEST}/test.safetensors"),
    output:
        parity=f"{RUN}/onnx/adapter/parity-{{precision}}.json",
    log:
        "logs/check_adapter/{model}/{scenario}/{technique}/seed-{seed}/{precision}.log",
    benchmark:
        "logs/benchmarks/check_adapter/{model}/{scenario}/{technique}/seed-{seed}/{precision}.tsv"
    wildcard_constraints:
        technique=one_of(MATRIX.switched),
        precision=one_of(MATRIX.switchable),
    conda:
        "../envs/train/environment.yaml"
    threads: EXPERIMENT.evaluation.threads
    resources:
        mem_mb=needs.memory("onnx"),
        runtime=needs.minutes("onnx"),
    params:
        recipe=job_params.adapter_parity,
        tokens=subpath(input.tokens, parent=True),
    message:
        "Comparing the adapter of {wildcards.technique} of {wildcards.model} on {wildcards.scenario} with its merged model"
    shell:
        """
        python "$SNAKETUNE/scripts/check_adapter.py" \
            --recipe {params.recipe:q} \
            --model {input.model:q} \
            --adapter {input.adapter:q} \
            --tokens-directory {params.tokens:q} \
            --merged-logits {input.logits:q} \
            --base-logits {input.untuned_logits:q} \
            --output {output.parity:q} \
            &> {log:q}
        """
