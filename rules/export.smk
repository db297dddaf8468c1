"""From a trained run to quantized ONNX Runtime models, each hop compared with its parent.

Needs: adapter/ or model/ of each run, the base model, the tokens of the parity probe.
Makes: merged/, onnx/{precision}/ and parity.json of each run.
"""


rule merge_adapter:
    input:
        base=f"{BASE}/manifest.json",
        base_files=ancient(files_in(BASE, MODEL_FILES)),
        trained=f"{RUN}/manifest.json",
        adapter=ancient(f"{RUN}/adapter/adapter_model.safetensors"),
        adapter_config=ancient(f"{RUN}/adapter/adapter_config.json"),
        tokens=f"{TOKENS}/manifest.json",
        rows=ancient(f"{TOKENS}/test.safetensors"),
    output:
        model=intermediate(files_in(f"{RUN}/merged", MODEL_FILES)),
        manifest=f"{RUN}/merged/manifest.json",
        provenance=f"{RUN}/merged/provenance.json",
        logits=f"{RUN}/evaluation/adapter.logits.safetensors",
    log:
        "logs/merge/{model}/{scenario}/{technique}/seed-{seed}.log",
    benchmark:
        "logs/benchmarks/merge/{model}/{scenario}/{technique}/seed-{seed}.tsv"
    wildcard_constraints:
        technique=one_of(techniques(with_adapter=True)),
    conda:
        "../envs/train/environment.yaml"
    params:
        recipe=lambda wildcards: recipe("merge_adapter.py", probe=PROBE, **MATRIX.merge_recipe(wildcards.technique)),
        base=subpath(input.base, parent=True),
        adapter=subpath(input.adapter, parent=True),
        tokens=subpath(input.tokens, parent=True),
        directory=subpath(output.manifest, parent=True),
    message:
        "Merging {wildcards.technique} of {wildcards.model} on {wildcards.scenario}"
    shell:
        """
        python scripts/merge_adapter.py \
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
        model=intermediate(files_in(f"{RUN}/merged", MODEL_FILES)),
        manifest=f"{RUN}/merged/manifest.json",
        provenance=f"{RUN}/merged/provenance.json",
    log:
        "logs/merge/{model}/{scenario}/{technique}/seed-{seed}.log",
    benchmark:
        "logs/benchmarks/merge/{model}/{scenario}/{technique}/seed-{seed}.tsv"
    wildcard_constraints:
        technique=one_of(techniques(with_adapter=False)),
    conda:
        "../envs/train/environment.yaml"
    params:
        recipe=recipe("copy_model.py"),
        base=subpath(input.base, parent=True),
        trained=subpath(input.weights, parent=True),
        directory=subpath(output.manifest, parent=True),
    message:
        "Laying out all weights of {wildcards.technique} of {wildcards.model} on {wildcards.scenario}"
    shell:
        """
        python scripts/copy_model.py \
            --recipe {params.recipe:q} \
            --base-directory {params.base:q} \
            --trained-directory {params.trained:q} \
            --output-directory {params.directory:q} \
            &> {log:q}
        """


use rule copy_model as copy_untuned_model with:
    input:
        base=f"{BASE}/manifest.json",
        base_files=ancient(files_in(BASE, MODEL_FILES)),
    output:
        model=intermediate(files_in(f"{UNTUNED}/merged", MODEL_FILES)),
        manifest=f"{UNTUNED}/merged/manifest.json",
        provenance=f"{UNTUNED}/merged/provenance.json",
    log:
        "logs/merge/{model}/{scenario}/base/seed-0.log",
    benchmark:
        "logs/benchmarks/merge/{model}/{scenario}/base/seed-0.tsv"
    wildcard_constraints:
        model=one_of(MATRIX.models),
    params:
        recipe=recipe("copy_model.py"),
        base=subpath(input.base, parent=True),
        trained=subpath(input.base, parent=True),
        directory=subpath(output.manifest, parent=True),
    message:
        "Laying out the untuned {wildcards.model} for {wildcards.scenario}"


rule export_onnx:
    input:
        merged=f"{RUN}/merged/manifest.json",
        model=ancient(files_in(f"{RUN}/merged", MODEL_FILES)),
    output:
        model=intermediate(files_in(f"{RUN}/onnx/fp32", ONNX_FILES)),
        manifest=f"{RUN}/onnx/fp32/manifest.json",
        provenance=f"{RUN}/onnx/fp32/provenance.json",
    log:
        "logs/export/{model}/{scenario}/{technique}/seed-{seed}/fp32.log",
    benchmark:
        "logs/benchmarks/export/{model}/{scenario}/{technique}/seed-{seed}/fp32.tsv"
    wildcard_constraints:
        technique=one_of(["base", *MATRIX.techniques]),
    conda:
        "../envs/export/environment.yaml"
    params:
        recipe=recipe("export_onnx.py", environment="export"),
        merged=subpath(input.merged, parent=True),
        directory=subpath(output.manifest, parent=True),
    message:
        "Exporting {wildcards.technique} of {wildcards.model} on {wildcards.scenario} to ONNX"
    shell:
        """
        python scripts/make_environment.py --lock envs/export/requirements.txt --unless optimum-onnx -- \
            scripts/export_onnx.py \
            --recipe {params.recipe:q} \
            --model-directory {params.merged:q} \
            --output-directory {params.directory:q} \
            &> {log:q}
        """


rule quantize_onnx:
    input:
        fp32=f"{RUN}/onnx/fp32/manifest.json",
        model=ancient(files_in(f"{RUN}/onnx/fp32", ONNX_FILES)),
    output:
        model=files_in(f"{RUN}/onnx/{{precision}}", ONNX_FILES),
        manifest=f"{RUN}/onnx/{{precision}}/manifest.json",
        provenance=f"{RUN}/onnx/{{precision}}/provenance.json",
    log:
        "logs/export/{model}/{scenario}/{technique}/seed-{seed}/{precision}.log",
    benchmark:
        "logs/benchmarks/export/{model}/{scenario}/{technique}/seed-{seed}/{precision}.tsv"
    wildcard_constraints:
        technique=one_of(["base", *MATRIX.techniques]),
    conda:
        "../envs/export/environment.yaml"
    params:
        recipe=lambda wildcards: recipe(
            "quantize_onnx.py", environment="export", **MATRIX.quantization_recipe(wildcards.precision)
        ),
        directory=subpath(output.manifest, parent=True),
    message:
        "Quantizing {wildcards.technique} of {wildcards.model} on {wildcards.scenario} to {wildcards.precision}"
    shell:
        """
        python scripts/make_environment.py --lock envs/export/requirements.txt --unless optimum-onnx -- \
            scripts/quantize_onnx.py \
            --recipe {params.recipe:q} \
            --model {input.model[0]:q} \
            --output-directory {params.directory:q} \
            &> {log:q}
        """


rule check_parity:
    input:
        manifests=expand(f"{RUN}/onnx/{{precision}}/manifest.json", precision=EXPERIMENT.precisions, allow_missing=True),
        models=ancient(
            expand(
                f"{RUN}/onnx/{{precision}}/{{name}}",
                precision=EXPERIMENT.precisions,
                name=ONNX_FILES[:2],
                allow_missing=True,
            )
        ),
        figures=expand(
            f"{RUN}/evaluation/{{backend}}.json",
            backend=["torch", *(f"onnx-{name}" for name in EXPERIMENT.precisions)],
            allow_missing=True,
        ),
        merged=f"{RUN}/evaluation/torch.logits.safetensors",
        adapter=adapter_logits,
        tokens=f"{TOKENS}/manifest.json",
        rows=ancient(f"{TOKENS}/test.safetensors"),
    output:
        parity=f"{RUN}/parity.json",
    log:
        "logs/check_parity/{model}/{scenario}/{technique}/seed-{seed}.log",
    benchmark:
        "logs/benchmarks/check_parity/{model}/{scenario}/{technique}/seed-{seed}.tsv"
    wildcard_constraints:
        technique=one_of(["base", *MATRIX.techniques]),
    conda:
        "../envs/train/environment.yaml"
    params:
        recipe=lambda wildcards: recipe("check_parity.py", **MATRIX.parity_recipe(wildcards.scenario)),
        run=subpath(output.parity, parent=True),
        tokens=subpath(input.tokens, parent=True),
        evidence="work/parity/{model}/{scenario}/{technique}/seed-{seed}.json",
    message:
        "Comparing every form of {wildcards.technique} of {wildcards.model} on {wildcards.scenario} with its parent"
    shell:
        """
        python scripts/check_parity.py \
            --recipe {params.recipe:q} \
            --run-directory {params.run:q} \
            --tokens-directory {params.tokens:q} \
            --adapter-logits {input.adapter:q} \
            --evidence {params.evidence:q} \
            --output {output.parity:q} \
            &> {log:q}
        """
