"""How fast each form of a run's model generates on this machine.

Needs: merged/ and onnx/{precision}/ of each run, results/tokens/{model}/{scenario}/test/.
Makes: benchmark.json of each run.
"""


rule benchmark_exports:
    input:
        unpack(inputs.exports),
        merged=f"{RUN}/merged/manifest.json",
        weights=ancient(files_in(f"{RUN}/merged", MODEL_FILES)),
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
        run=subpath(output.figures, parent=True),
        tokens=subpath(input.tokens, parent=True),
    message:
        "Measuring the speed of {wildcards.technique} of {wildcards.model} on {wildcards.scenario}"
    shell:
        """
        python scripts/benchmark.py \
            --recipe {params.recipe:q} \
            --run-directory {params.run:q} \
            --tokens-directory {params.tokens:q} \
            --output {output.figures:q} \
            &> {log:q}
        """
