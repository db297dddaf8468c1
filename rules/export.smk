"""From a trained run to quantized ONNX Runtime models, each hop compared with its parent.

Needs: adapter/ or model/ of each run, the base model, the tokens of the parity probe.
Makes: merged/, onnx/{precision}/ and parity.json of each run.
"""


rule merge_adapter:
    """Merging {wildcards.technique} of {wildcards.model} on {wildcards.scenario}"""
    input:
        base=f"{BASE}/manifest.json",
        base_files=ancient(files_in(BASE, MODEL_FILES)),
        trained=f"{RUN}/manifest.json",
        weights=ancient(files_in(f"{RUN}/adapter", ADAPTER_FILES)),
        tokens=f"{TOKENS}/manifest.json",
        rows=ancient(f"{TOKENS}/test.safetensors"),
    output:
        model=intermediate(files_in(f"{RUN}/merged", MODEL_FILES)),
        records=files_in(f"{RUN}/merged", RECORDS),
        logits=f"{RUN}/evaluation/adapter.logits.safetensors",
    params:
        recipe=lambda wildcards: recipe("merge_adapter.py", probe=PROBE, **MATRIX.merge_recipe(wildcards.technique)),
        base=BASE,
        adapter=f"{RUN}/adapter",
        tokens=TOKENS,
        directory=f"{RUN}/merged",
    log:
        "logs/merge/{model}/{scenario}/{technique}/seed-{seed}.log",
    benchmark:
        "logs/benchmarks/merge/{model}/{scenario}/{technique}/seed-{seed}.tsv"
    conda:
        "../envs/train/environment.yaml"
    wildcard_constraints:
        technique=one_of(techniques(with_adapter=True)),
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
    """Laying out all weights of {wildcards.technique} of {wildcards.model} on {wildcards.scenario}"""
    input:
        base=f"{BASE}/manifest.json",
        base_files=ancient(files_in(BASE, MODEL_FILES)),
        trained=f"{RUN}/manifest.json",
        weights=ancient(files_in(f"{RUN}/model", MODEL_FILES[:2])),
    output:
        model=intermediate(files_in(f"{RUN}/merged", MODEL_FILES)),
        records=files_in(f"{RUN}/merged", RECORDS),
    params:
        recipe=recipe("copy_model.py"),
        base=BASE,
        trained=f"{RUN}/model",
        directory=f"{RUN}/merged",
    log:
        "logs/merge/{model}/{scenario}/{technique}/seed-{seed}.log",
    benchmark:
        "logs/benchmarks/merge/{model}/{scenario}/{technique}/seed-{seed}.tsv"
    conda:
        "../envs/train/environment.yaml"
    wildcard_constraints:
        technique=one_of(techniques(with_adapter=False)),
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
        weights=ancient(files_in(BASE, MODEL_FILES)),
    output:
        model=intermediate(files_in(f"{UNTUNED}/merged", MODEL_FILES)),
        records=files_in(f"{UNTUNED}/merged", RECORDS),
    params:
        recipe=recipe("copy_model.py"),
        base=BASE,
        trained=BASE,
        directory=f"{UNTUNED}/merged",
    log:
        "logs/merge/{model}/{scenario}/base/seed-0.log",
    benchmark:
        "logs/benchmarks/merge/{model}/{scenario}/base/seed-0.tsv"
    wildcard_constraints:
        model=one_of(MATRIX.models),


rule export_onnx:
    """Exporting {wildcards.technique} of {wildcards.model} on {wildcards.scenario} to ONNX"""
    input:
        merged=f"{RUN}/merged/manifest.json",
        model=ancient(files_in(f"{RUN}/merged", MODEL_FILES)),
    output:
        model=intermediate(files_in(f"{RUN}/onnx/fp32", ONNX_FILES)),
        records=files_in(f"{RUN}/onnx/fp32", RECORDS),
    params:
        recipe=recipe("export_onnx.py", environment="export"),
        merged=f"{RUN}/merged",
        directory=f"{RUN}/onnx/fp32",
    log:
        "logs/export/{model}/{scenario}/{technique}/seed-{seed}/fp32.log",
    benchmark:
        "logs/benchmarks/export/{model}/{scenario}/{technique}/seed-{seed}/fp32.tsv"
    conda:
        "../envs/export/environment.yaml"
    wildcard_constraints:
        technique=one_of(["base", *MATRIX.techniques]),
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
    """Quantizing {wildcards.technique} of {wildcards.model} on {wildcards.scenario} to {wildcards.precision}"""
    input:
        fp32=f"{RUN}/onnx/fp32/manifest.json",
        model=ancient(files_in(f"{RUN}/onnx/fp32", ONNX_FILES)),
    output:
        model=files_in(f"{RUN}/onnx/{{precision}}", ONNX_FILES),
        records=files_in(f"{RUN}/onnx/{{precision}}", RECORDS),
    params:
        recipe=lambda wildcards: recipe("quantize_onnx.py", environment="export", **MATRIX.quantization_recipe(wildcards.precision)),
        directory=f"{RUN}/onnx/{{precision}}",
    log:
        "logs/export/{model}/{scenario}/{technique}/seed-{seed}/{precision}.log",
    benchmark:
        "logs/benchmarks/export/{model}/{scenario}/{technique}/seed-{seed}/{precision}.tsv"
    conda:
        "../envs/export/environment.yaml"
    wildcard_constraints:
        technique=one_of(["base", *MATRIX.techniques]),
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
    """Comparing every form of {wildcards.technique} of {wildcards.model} on {wildcards.scenario} with its parent"""
    input:
        manifests=expand(f"{RUN}/onnx/{{precision}}/manifest.json", precision=EXPERIMENT.precisions, allow_missing=True),
        models=ancient(expand(f"{RUN}/onnx/{{precision}}/{{name}}", precision=EXPERIMENT.precisions, name=ONNX_FILES[:2], allow_missing=True)),
        figures=expand(f"{RUN}/evaluation/{{backend}}.json", backend=["torch", *(f"onnx-{name}" for name in EXPERIMENT.precisions)], allow_missing=True),
        merged=f"{RUN}/evaluation/torch.logits.safetensors",
        adapter=adapter_logits,
        tokens=f"{TOKENS}/manifest.json",
        rows=ancient(f"{TOKENS}/test.safetensors"),
    output:
        parity=f"{RUN}/parity.json",
    params:
        recipe=lambda wildcards: recipe("check_parity.py", **MATRIX.parity_recipe(wildcards.scenario)),
        run=RUN,
        tokens=TOKENS,
        evidence="work/parity/{model}/{scenario}/{technique}/seed-{seed}.json",
    log:
        "logs/check_parity/{model}/{scenario}/{technique}/seed-{seed}.log",
    benchmark:
        "logs/benchmarks/check_parity/{model}/{scenario}/{technique}/seed-{seed}.tsv"
    conda:
        "../envs/train/environment.yaml"
    wildcard_constraints:
        technique=one_of(["base", *MATRIX.techniques]),
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
