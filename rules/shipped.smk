"""Adapters trained on the numbers of a weight-only export, which is shipped once, with each run's adapter beside it.

Needs: onnx/{precision}/ of the untuned model, adapter/ of each run that was trained on its numbers.
Makes: dequantized/{precision}/ and switchable/{precision}/ of each model (of a scenario's untuned run, if calibrated
on its rows); onnx/{precision}/ of each such run, with its adapter.
"""


rule dequantize_base:
    input:
        base=f"{BASE}/manifest.json",
        base_files=ancient(files_in(BASE, MODEL_FILES)),
        export=f"{EXPORTS}/{{precision}}/manifest.json",
        model=ancient(files_in(f"{EXPORTS}/{{precision}}", ONNX_FILES[:2])),
    output:
        model=files_in(f"{UNTUNED_FORMS}/dequantized/{{precision}}", MODEL_FILES),
        manifest=f"{UNTUNED_FORMS}/dequantized/{{precision}}/manifest.json",
        provenance=f"{UNTUNED_FORMS}/dequantized/{{precision}}/provenance.json",
    log:
        "logs/dequantize_base/{tree}/{model}{run}/{precision}.log",
    benchmark:
        "logs/benchmarks/dequantize_base/{tree}/{model}{run}/{precision}.tsv"
    wildcard_constraints:
        precision=one_of(MATRIX.shipped.values()),
    conda:
        "../envs/export/environment.yaml"
    resources:
        mem_mb=needs.memory("quantize"),
        runtime=needs.minutes("quantize"),
    params:
        recipe=job_params.encode("dequantize_base.py", "export"),
        base=subpath(input.base, parent=True),
        directory=subpath(output.manifest, parent=True),
    message:
        "Dequantizing {wildcards.precision} of {wildcards.model} to train on"
    shell:
        """
        python "$SNAKETUNE/scripts/make_environment.py" --lock "$SNAKETUNE/envs/export/requirements.txt" --unless optimum-onnx -- \
            "$SNAKETUNE/scripts/dequantize_base.py" \
            --recipe {params.recipe:q} \
            --base-directory {params.base:q} \
            --model {input.model[0]:q} \
            --output-directory {params.directory:q} \
            &> {log:q}
        """


use rule export_switchable_base as export_quantized_base with:
    input:
        base=f"{UNTUNED_FORMS}/dequantized/{{precision}}/manifest.json",
        export=f"{EXPORTS}/{{precision}}/manifest.json",
        model=ancient(files_in(f"{EXPORTS}/{{precision}}", ONNX_FILES)),
    output:
        model=files_in(f"{UNTUNED_FORMS}/switchable/{{precision}}", [*ONNX_FILES, INPUTS_FILE]),
        manifest=f"{UNTUNED_FORMS}/switchable/{{precision}}/manifest.json",
        provenance=f"{UNTUNED_FORMS}/switchable/{{precision}}/provenance.json",
    log:
        "logs/export_switchable_base/{tree}/{model}{run}/{precision}.log",
    benchmark:
        "logs/benchmarks/export_switchable_base/{tree}/{model}{run}/{precision}.tsv"
    wildcard_constraints:
        precision=one_of(set(MATRIX.shipped.values()) - set(MATRIX.genai)),
    message:
        "Building {wildcards.precision} of {wildcards.model} for switchable adapters"


use rule export_quantized_base as export_quantized_genai with:
    input:
        base=f"{UNTUNED_FORMS}/dequantized/{{precision}}/manifest.json",
        export=f"{EXPORTS}/{{precision}}/manifest.json",
        model=ancient(files_in(f"{EXPORTS}/{{precision}}", GENAI_FILES)),
    output:
        model=files_in(f"{UNTUNED_FORMS}/switchable/{{precision}}", [*GENAI_FILES, INPUTS_FILE]),
        manifest=f"{UNTUNED_FORMS}/switchable/{{precision}}/manifest.json",
        provenance=f"{UNTUNED_FORMS}/switchable/{{precision}}/provenance.json",
    wildcard_constraints:
        precision=one_of(set(MATRIX.shipped.values()) & set(MATRIX.genai)),


use rule export_adapter as export_shipped_adapter with:
    input:
        base=inputs.trained_on,
        weights=ancient(inputs.trained_on_weights),
        switchable=inputs.shipped_base,
        inputs=ancient(inputs.shipped_inputs),
        trained=f"{RUN}/manifest.json",
        adapter=ancient(f"{RUN}/adapter/adapter_model.safetensors"),
        adapter_config=ancient(f"{RUN}/adapter/adapter_config.json"),
    output:
        adapter=f"{RUN}/onnx/{{precision}}/{ADAPTER_FILE}",
        manifest=f"{RUN}/onnx/{{precision}}/manifest.json",
        provenance=f"{RUN}/onnx/{{precision}}/provenance.json",
    log:
        "logs/export_adapter/{model}/{scenario}/{technique}/seed-{seed}/{precision}.log",
    benchmark:
        "logs/benchmarks/export_adapter/{model}/{scenario}/{technique}/seed-{seed}/{precision}.tsv"
    wildcard_constraints:
        technique=one_of(MATRIX.shipped),
        precision=one_of(MATRIX.shipped.values()),
