"""Each form of a run's model compared with its parent, within the budgets of the experiment.

Needs: the evaluations of each run, the tokens of the parity probe.
Makes: parity.json of each run.
"""


rule check_parity:
    input:
        unpack(inputs.exports),
        evaluations=inputs.evaluations,
        model=inputs.final_manifest,
        prefixes=ancient(inputs.exported_prefixes),
        logits=ancient(f"{RUN}/evaluation/torch.logits.safetensors"),
        adapter=ancient(inputs.adapter_logits),
        tokens=f"{TEST}/manifest.json",
        rows=ancient(files_in(TEST, ["test.safetensors", "test.jsonl"])),
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
    threads: EXPERIMENT.evaluation.threads
    resources:
        mem_mb=needs.memory("parity"),
        runtime=needs.minutes("parity"),
    params:
        recipe=job_params.parity,
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
