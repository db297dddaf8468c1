"""The generation speed of each form of a run's model on this machine.

Needs: merged/ of each run or models/{model}/base/, onnx/{precision}/, results/tokens/{model}/{scenario}/test/.
Makes: benchmark.json of each run.
"""


rule benchmark_exports:
    input:
        unpack(inputs.exports),
        unpack(inputs.evaluated_model),
        tokens=f"{TEST}/manifest.json",
        rows=ancient(f"{TEST}/test.safetensors"),
    output:
        figures=f"{RUN}/benchmark.json",
    log:
        "logs/benchmark/{model}/{scenario}/{technique}/seed-{seed}.log",
    benchmark:
        "logs/benchmarks/benchmark/{model}/{scenario}/{technique}/seed-{seed}.tsv"
    wildcard_constraints:
        technique=one_of(MATRIX.merged),
    conda:
        "../envs/train/environment.yaml"
    threads: needs.every_core(lambda wildcards: EXPERIMENT.benchmark.threads)
    resources:
        mem_mb=needs.memory("benchmark"),
        runtime=needs.minutes("benchmark"),
    params:
        recipe=job_params.benchmark,
        tokens=subpath(input.tokens, parent=True),
    message:
        "Measuring the speed of {wildcards.technique} of {wildcards.model} on {wildcards.scenario}"
    shell:
        """
        python "$SNAKETUNE/scripts/benchmark.py" \
            --recipe {params.recipe:q} \
            --model {input.model:q} \
            --exports {input.exports:q} \
            --tokens-directory {params.tokens:q} \
            --output {output.figures:q} \
            &> {log:q}
        """
