"""From a merged model to quantized ONNX Runtime models, each hop compared with its parent.

Needs: merged/ of each run, the tokens of the parity probe.
Makes: onnx/{precision}/ and parity.json of each run.
"""


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
        merged=f"{RUN}/merged/manifest.json",
        logits=ancient(f"{RUN}/evaluation/torch.logits.safetensors"),
        adapter=ancient(adapter_logits),
        tokens=f"{TEST}/manifest.json",
        rows=ancient(f"{TEST}/test.safetensors"),
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
