"""Exports merged models to quantized ONNX Runtime models.

A run's exports are in its onnx/. The untuned model is exported once, to onnx/ of the model, whatever
the scenarios; only its calibrated precisions are made for each scenario, in its run. A prefix is
combined with the untuned model's ONNX files, because its base is the same.

Needs: merged/ or prefix/ of each run, models/{model}/base/, training rows if a precision is calibrated.
Makes: onnx/{precision}/ of each run and model.
"""


rule export_onnx:
    input:
        unpack(inputs.weights_to_export),
    output:
        model=targets.intermediate(files_in(f"{EXPORTS}/fp32", ONNX_FILES)),
        manifest=f"{EXPORTS}/fp32/manifest.json",
        provenance=f"{EXPORTS}/fp32/provenance.json",
    log:
        "logs/export/{tree}/{model}{run}/fp32.log",
    benchmark:
        "logs/benchmarks/export/{tree}/{model}{run}/fp32.tsv"
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
        "Exporting {wildcards.model}{wildcards.run} to ONNX"
    shell:
        """
        python "$SNAKETUNE/scripts/make_environment.py" --lock "$SNAKETUNE/envs/export/requirements.txt" --unless optimum-onnx -- \
            "$SNAKETUNE/scripts/export_onnx.py" \
            --recipe {params.recipe:q} \
            --model-directory {params.merged:q} \
            --output-directory {params.directory:q} \
            &> {log:q}
        """


rule quantize_onnx:
    input:
        unpack(inputs.fp32_to_quantize),
    output:
        model=files_in(f"{EXPORTS}/{{precision}}", ONNX_FILES),
        manifest=f"{EXPORTS}/{{precision}}/manifest.json",
        provenance=f"{EXPORTS}/{{precision}}/provenance.json",
    log:
        "logs/export/{tree}/{model}{run}/{precision}.log",
    benchmark:
        "logs/benchmarks/export/{tree}/{model}{run}/{precision}.tsv"
    wildcard_constraints:
        run=run_of(MATRIX.rounded),
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
        "Quantizing {wildcards.model}{wildcards.run} to {wildcards.precision}"
    shell:
        """
        python "$SNAKETUNE/scripts/make_environment.py" --lock "$SNAKETUNE/envs/export/requirements.txt" --unless optimum-onnx -- \
            "$SNAKETUNE/scripts/quantize_onnx.py" \
            --recipe {params.recipe:q} \
            --model {input.model[0]:q} \
            --calibration-directory {params.calibration:q} \
            --output-directory {params.directory:q} \
            &> {log:q}
        """


rule build_genai:
    input:
        unpack(inputs.weights_to_build),
    output:
        model=files_in(f"{EXPORTS}/{{precision}}", GENAI_FILES),
        manifest=f"{EXPORTS}/{{precision}}/manifest.json",
        provenance=f"{EXPORTS}/{{precision}}/provenance.json",
    log:
        "logs/export/{tree}/{model}{run}/{precision}.log",
    benchmark:
        "logs/benchmarks/export/{tree}/{model}{run}/{precision}.tsv"
    wildcard_constraints:
        run=run_of(MATRIX.rounded),
        precision=one_of(MATRIX.genai),
    conda:
        "../envs/export/environment.yaml"
    resources:
        mem_mb=needs.memory("genai"),
        runtime=needs.minutes("genai"),
    params:
        recipe=job_params.genai,
        merged=subpath(input.merged, parent=True),
        calibration=lambda wildcards, input: [str(Path(path).parent) for path in input.calibration[:1]],
        directory=subpath(output.manifest, parent=True),
    message:
        "Building {wildcards.precision} of {wildcards.model}{wildcards.run} for onnxruntime-genai"
    shell:
        """
        python "$SNAKETUNE/scripts/make_environment.py" --lock "$SNAKETUNE/envs/export/requirements.txt" --unless optimum-onnx -- \
            "$SNAKETUNE/scripts/build_genai.py" \
            --recipe {params.recipe:q} \
            --model-directory {params.merged:q} \
            --calibration-directory {params.calibration:q} \
            --output-directory {params.directory:q} \
            &> {log:q}
        """


rule add_prefix:
    input:
        unpack(inputs.untuned_export),
        prefix=f"{RUN}/prefix/manifest.json",
        keys_and_values=ancient(f"{RUN}/prefix/{PREFIX_FILE}"),
    output:
        model=files_in(f"{RUN}/onnx/{{precision}}", [*ONNX_FILES, PREFIX_FILE]),
        manifest=f"{RUN}/onnx/{{precision}}/manifest.json",
        provenance=f"{RUN}/onnx/{{precision}}/provenance.json",
    log:
        "logs/export/runs/{model}/{scenario}/{technique}/seed-{seed}/{precision}.log",
    benchmark:
        "logs/benchmarks/export/runs/{model}/{scenario}/{technique}/seed-{seed}/{precision}.tsv"
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
        "Combining the prefix of {wildcards.technique} on {wildcards.scenario} with {wildcards.model} as {wildcards.precision}"
    shell:
        """
        python "$SNAKETUNE/scripts/add_prefix.py" \
            --recipe {params.recipe:q} \
            --model-directory {params.base:q} \
            --prefix-directory {params.prefix:q} \
            --output-directory {params.directory:q} \
            &> {log:q}
        """


use rule add_prefix as add_prefix_to_fp32 with:
    input:
        unpack(inputs.untuned_export),
        prefix=f"{RUN}/prefix/manifest.json",
        keys_and_values=ancient(f"{RUN}/prefix/{PREFIX_FILE}"),
    output:
        model=targets.intermediate(files_in(f"{RUN}/onnx/fp32", [*ONNX_FILES, PREFIX_FILE])),
        manifest=f"{RUN}/onnx/fp32/manifest.json",
        provenance=f"{RUN}/onnx/fp32/provenance.json",
    log:
        "logs/export/runs/{model}/{scenario}/{technique}/seed-{seed}/fp32.log",
    benchmark:
        "logs/benchmarks/export/runs/{model}/{scenario}/{technique}/seed-{seed}/fp32.tsv"
    wildcard_constraints:
        technique=one_of(MATRIX.prefixed),
    message:
        "Combining the prefix of {wildcards.technique} on {wildcards.scenario} with {wildcards.model} as fp32"
