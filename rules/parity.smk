"""Each form of a run's model compared with its parent, within the budgets of the experiment.

Needs: the evaluations of each run, the sizes of its exports in their manifests. No model is loaded.
Makes: parity.json of each run.
"""


rule check_parity:
    input:
        unpack(inputs.evaluations),
        adapter=ancient(inputs.adapter_logits),
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
    resources:
        mem_mb=needs.memory("parity"),
        runtime=needs.minutes("parity"),
    params:
        recipe=job_params.parity,
        run=subpath(output.parity, parent=True),
        evidence="work/parity/{model}/{scenario}/{technique}/seed-{seed}.json",
    message:
        "Comparing every form of {wildcards.technique} of {wildcards.model} on {wildcards.scenario} with its parent"
    shell:
        """
        python "$SNAKETUNE/scripts/check_parity.py" \
            --recipe {params.recipe:q} \
            --run-directory {params.run:q} \
            --exports {input.exports:q} \
            --adapter-logits {input.adapter:q} \
            --evidence {params.evidence:q} \
            --output {output.parity:q} \
            &> {log:q}
        """
