"""Deterministic evaluation of every backend on the same test rows.

Needs: merged/ or prefix/ of each run or models/{model}/base/, onnx/{precision}/ (or an adapter in it, and switchable/{precision}/), results/tokens/{model}/{scenario}/test/.
Makes: evaluation/{backend}.json, .predictions.jsonl and .logits.safetensors of each run.
"""


rule evaluate_torch:
    input:
        unpack(inputs.evaluated_model),
        tokens=f"{TEST}/manifest.json",
        rows=ancient(files_in(TEST, TEST_FILES)),
    output:
        figures=f"{RUN}/evaluation/torch.json",
        predictions=f"{RUN}/evaluation/torch.predictions.jsonl",
        logits=f"{RUN}/evaluation/torch.logits.safetensors",
    log:
        "logs/evaluate/{model}/{scenario}/{technique}/seed-{seed}/torch.log",
    benchmark:
        "logs/benchmarks/evaluate/{model}/{scenario}/{technique}/seed-{seed}/torch.tsv"
    wildcard_constraints:
        technique=one_of(["base", *MATRIX.techniques]),
    conda:
        "../envs/train/environment.yaml"
    threads: EXPERIMENT.evaluation.threads
    resources:
        mem_mb=needs.memory("torch"),
        runtime=needs.minutes("torch"),
        gpu=needs.evaluation_gpus,
    params:
        recipe=job_params.evaluation,
        python=job_params.on_gpu,
        tokens=subpath(input.tokens, parent=True),
    message:
        "Evaluating {wildcards.technique} of {wildcards.model} on {wildcards.scenario} with torch"
    shell:
        """
        {params.python} "$SNAKETUNE/scripts/evaluate.py" \
            --recipe {params.recipe:q} \
            --model {input.model:q} \
            --prefix {input.prefix:q} \
            --adapter {input.adapter:q} \
            --tokens-directory {params.tokens:q} \
            --output {output.figures:q} \
            &> {log:q}
        """


use rule evaluate_torch as evaluate_onnx with:
    input:
        unpack(inputs.evaluated_export),
        tokens=f"{TEST}/manifest.json",
        rows=ancient(files_in(TEST, TEST_FILES)),
    output:
        figures=f"{RUN}/evaluation/onnx-{{precision}}.json",
        predictions=f"{RUN}/evaluation/onnx-{{precision}}.predictions.jsonl",
        logits=f"{RUN}/evaluation/onnx-{{precision}}.logits.safetensors",
    log:
        "logs/evaluate/{model}/{scenario}/{technique}/seed-{seed}/onnx-{precision}.log",
    benchmark:
        "logs/benchmarks/evaluate/{model}/{scenario}/{technique}/seed-{seed}/onnx-{precision}.tsv"
    wildcard_constraints:
        technique=one_of(["base", *MATRIX.techniques]),
        precision=one_of(["fp32", *MATRIX.quantized]),
    resources:
        mem_mb=needs.memory("onnx"),
        runtime=needs.minutes("onnx"),
    message:
        "Evaluating {wildcards.technique} of {wildcards.model} on {wildcards.scenario} with ONNX Runtime, {wildcards.precision}"


use rule evaluate_onnx as evaluate_genai with:
    output:
        figures=f"{RUN}/evaluation/{{precision}}.json",
        predictions=f"{RUN}/evaluation/{{precision}}.predictions.jsonl",
        logits=f"{RUN}/evaluation/{{precision}}.logits.safetensors",
    log:
        "logs/evaluate/{model}/{scenario}/{technique}/seed-{seed}/{precision}.log",
    benchmark:
        "logs/benchmarks/evaluate/{model}/{scenario}/{technique}/seed-{seed}/{precision}.tsv"
    wildcard_constraints:
        technique=one_of(MATRIX.merged),
        precision=one_of(MATRIX.genai),
    message:
        "Evaluating {wildcards.technique} of {wildcards.model} on {wildcards.scenario} with onnxruntime-genai, {wildcards.precision}"
