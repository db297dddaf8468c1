"""The published table, measured: the cost of short runs of equal work, and a verdict for each cell.

Needs: results/comparisons.json; the base model and the tokens that the experiment's properties name.
Makes: results/properties/{technique}/ranks-{ranks}/round-{round}/, results/technique_table.json.
"""

if EXPERIMENT.properties:
    MEASURED = {"model": EXPERIMENT.properties.model, "scenario": EXPERIMENT.properties.scenario}

    use rule train_adapter as measure_technique with:
        input:
            base=f"{BASE}/manifest.json".format(**MEASURED),
            weights=ancient(files_in(BASE.format(**MEASURED), MODEL_FILES)),
            tokens=f"{TRAINING}/manifest.json".format(**MEASURED),
            rows=ancient(files_in(TRAINING.format(**MEASURED), TRAINING_FILES)),
            before=inputs.round_before,
            others=ancient(inputs.others_before),
            start=[],
        output:
            curve=f"{PROPERTIES}/train.jsonl",
            resources=f"{PROPERTIES}/resources.json",
        log:
            "logs/measure/{technique}/ranks-{ranks}/round-{round}.log",
        benchmark:
            "logs/benchmarks/measure/{technique}/ranks-{ranks}/round-{round}.tsv"
        wildcard_constraints:
            technique=one_of(MATRIX.techniques),
            ranks=r"\d+",
            round=r"\d+",
        priority: 0
        threads: needs.every_core(needs.training_cores)
        params:
            recipe=job_params.property_run,
            launcher=job_params.launcher,
            base=subpath(input.base, parent=True),
            tokens=subpath(input.tokens, parent=True),
            directory=subpath(output.curve, parent=True),
            work="work/properties/{technique}/ranks-{ranks}/round-{round}",
            checkpoint_steps=not_a_trigger(EXPERIMENT.properties.steps),
            tracking=not_a_trigger([]),
        message:
            "Measuring {wildcards.technique} on {wildcards.ranks} ranks, round {wildcards.round}"


rule write_technique_table:
    input:
        comparisons=SUMMARY[1],
        resources=targets.properties(),
    output:
        table=TABLE,
    log:
        "logs/write_technique_table.log",
    benchmark:
        "logs/benchmarks/write_technique_table.tsv"
    localrule: True
    conda:
        "../envs/train/environment.yaml"
    resources:
        mem_mb=needs.memory("table"),
        runtime=needs.minutes("table"),
    params:
        recipe=job_params.encode("write_technique_table.py", **MATRIX.table_recipe()),
    message:
        "Measuring the published table"
    shell:
        """
        python "$SNAKETUNE/scripts/write_technique_table.py" \
            --recipe - \
            --results results \
            --output {output.table:q} \
            &> {log:q} <<< {params.recipe:q}
        """
