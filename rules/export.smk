"""From a merged model to quantized ONNX Runtime models.

A prefix goes with the untuned model's ONNX files: its base is the same.

Needs: merged/ or prefix/ of each run, training rows where a precision is calibrated.
Makes: onnx/{precision}/ of each run.
"""


rule export_onnx:
    input:
        merged=f"{RUN}/merged/manifest.json",
        model=ancient(files_in(f"{RUN}/merged", MODEL_FILES)),
    output:
        model=targets.intermediate(files_in(f"{RUN}/onnx/fp32", ONNX_FILES)),
        manifest=f"{RUN}/onnx/fp32/manifest.json",
        provenance=f"{RUN}/onnx/fp32/provenance.json",
    log:
        "logs/export/{model}/{scenario}/{technique}/seed-{seed}/fp32.log",
    benchmark:
        "logs/benchmarks/export/{model}/{scenario}/{technique}/seed-{seed}/fp32.tsv"
    wildcard_constraints:
        technique=one_of(MATRIX.merged),
    conda:
        "../envs/export/environment.yaml"
    resources:
        mem_mb=needs.memory("export"),
        runtime=needs.minutes("export"),
    params:
        recipe=job_params.encode("export_onnx.py", environment="export"),
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
        calibration=inputs.calibration_tokens,
    output:
        model=files_in(f"{RUN}/onnx/{{precision}}", ONNX_FILES),
        manifest=f"{RUN}/onnx/{{precision}}/manifest.json",
        provenance=f"{RUN}/onnx/{{precision}}/provenance.json",
    log:
        "logs/export/{model}/{scenario}/{technique}/seed-{seed}/{precision}.log",
    benchmark:
        "logs/benchmarks/export/{model}/{scenario}/{technique}/seed-{seed}/{precision}.tsv"
    wildcard_constraints:
        technique=one_of(MATRIX.merged),
        precision=one_of(MATRIX.quantized),
    conda:
        "../envs/export/environment.yaml"
    resources:
        mem_mb=needs.memory("quantize"),
        runtime=needs.minutes("quantize"),
    params:
        recipe=job_params.quantization,
        calibration=lambda wildcards, input: [str(Path(path).parent) for path in input.calibration[:1]],
        directory=subpath(output.manifest, parent=True),
    message:
        "Quantizing {wildcards.technique} of {wildcards.model} on {wildcards.scenario} to {wildcards.precision}"
    shell:
        """
        python scripts/make_environment.py --lock envs/export/requirements.txt --unless optimum-onnx -- \
            scripts/quantize_onnx.py \
            --recipe {params.recipe:q} \
            --model {input.model[0]:q} \
            --calibration-directory {params.calibration:q} \
            --output-directory {params.directory:q} \
            &> {log:q}
        """


rule build_genai:
    input:
        merged=f"{RUN}/merged/manifest.json",
        model=ancient(files_in(f"{RUN}/merged", MODEL_FILES)),
    output:
        model=files_in(f"{RUN}/onnx/{{precision}}", GENAI_FILES),
        manifest=f"{RUN}/onnx/{{precision}}/manifest.json",
        provenance=f"{RUN}/onnx/{{precision}}/provenance.json",
    log:
        "logs/export/{model}/{scenario}/{technique}/seed-{seed}/{precision}.log",
    benchmark:
        "logs/benchmarks/export/{model}/{scenario}/{technique}/seed-{seed}/{precision}.tsv"
    wildcard_constraints:
        technique=one_of(MATRIX.merged),
        precision=one_of(MATRIX.genai),
    conda:
        "../envs/export/environment.yaml"
    resources:
        mem_mb=needs.memory("genai"),
        runtime=needs.minutes("genai"),
    params:
        recipe=job_params.genai,
        merged=subpath(input.merged, parent=True),
        directory=subpath(output.manifest, parent=True),
    message:
        "Building {wildcards.precision} of {wildcards.technique} of {wildcards.model} on {wildcards.scenario} for onnxruntime-genai"
    shell:
        """
        python scripts/make_environment.py --lock envs/export/requirements.txt --unless optimum-onnx -- \
            scripts/build_genai.py \
            --recipe {params.recipe:q} \
            --model-directory {params.merged:q} \
            --output-directory {params.directory:q} \
            &> {log:q}
        """


rule add_prefix:
    input:
        base=f"{UNTUNED}/onnx/{{precision}}/manifest.json",
        model=ancient(files_in(f"{UNTUNED}/onnx/{{precision}}", ONNX_FILES)),
        prefix=f"{RUN}/prefix/manifest.json",
        keys_and_values=ancient(f"{RUN}/prefix/{PREFIX_FILE}"),
    output:
        model=files_in(f"{RUN}/onnx/{{precision}}", [*ONNX_FILES, PREFIX_FILE]),
        manifest=f"{RUN}/onnx/{{precision}}/manifest.json",
        provenance=f"{RUN}/onnx/{{precision}}/provenance.json",
    log:
        "logs/export/{model}/{scenario}/{technique}/seed-{seed}/{precision}.log",
    benchmark:
        "logs/benchmarks/export/{model}/{scenario}/{technique}/seed-{seed}/{precision}.tsv"
    wildcard_constraints:
        technique=one_of(MATRIX.prefixed),
        precision=one_of(MATRIX.quantized),
    conda:
        "../envs/train/environment.yaml"
    resources:
        mem_mb=needs.memory("quantize"),
        runtime=needs.minutes("quantize"),
    params:
        recipe=job_params.encode("add_prefix.py"),
        base=subpath(input.base, parent=True),
        prefix=subpath(input.prefix, parent=True),
        directory=subpath(output.manifest, parent=True),
    message:
        "Laying the prefix of {wildcards.technique} on {wildcards.scenario} beside {wildcards.model} as {wildcards.precision}"
    shell:
        """
        python scripts/add_prefix.py \
            --recipe {params.recipe:q} \
            --model-directory {params.base:q} \
            --prefix-directory {params.prefix:q} \
            --output-directory {params.directory:q} \
            &> {log:q}
        """


use rule add_prefix as add_prefix_to_fp32 with:
    input:
        base=f"{UNTUNED}/onnx/fp32/manifest.json",
        model=ancient(files_in(f"{UNTUNED}/onnx/fp32", ONNX_FILES)),
        prefix=f"{RUN}/prefix/manifest.json",
        keys_and_values=ancient(f"{RUN}/prefix/{PREFIX_FILE}"),
    output:
        model=targets.intermediate(files_in(f"{RUN}/onnx/fp32", [*ONNX_FILES, PREFIX_FILE])),
        manifest=f"{RUN}/onnx/fp32/manifest.json",
        provenance=f"{RUN}/onnx/fp32/provenance.json",
    log:
        "logs/export/{model}/{scenario}/{technique}/seed-{seed}/fp32.log",
    benchmark:
        "logs/benchmarks/export/{model}/{scenario}/{technique}/seed-{seed}/fp32.tsv"
    wildcard_constraints:
        technique=one_of(MATRIX.prefixed),
    message:
        "Laying the prefix of {wildcards.technique} on {wildcards.scenario} beside {wildcards.model} as fp32"
