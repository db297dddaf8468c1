"""A folder to ship for each run that ends with one model: the model, a program and a model card.

Needs: onnx/{precision}/ of the experiment's package.precision, parity.json, merged/ and the records
of each run; results/summary.csv, results/data/{scenario}/card.json.
Makes: package/ of each run, when `package` is asked for.
"""


rule package_model:
    input:
        unpack(inputs.packaged),
        evaluation=f"{RUN}/evaluation/{MATRIX.packaged}.json",
        parity=f"{RUN}/parity.json",
        training=inputs.training_records,
        summary=SUMMARY[:2],
        data=f"{DATA}/manifest.json",
        card=ancient(f"{DATA}/card.json"),
    output:
        files=files_in(f"{RUN}/package", PACKAGE_FILES),
        manifest=f"{RUN}/package/manifest.json",
        provenance=f"{RUN}/package/provenance.json",
    log:
        "logs/package/{model}/{scenario}/{technique}/seed-{seed}.log",
    benchmark:
        "logs/benchmarks/package/{model}/{scenario}/{technique}/seed-{seed}.tsv"
    wildcard_constraints:
        technique=one_of(MATRIX.rounded),
    conda:
        "../envs/train/environment.yaml"
    resources:
        mem_mb=needs.memory("copy"),
        runtime=needs.minutes("copy"),
    params:
        recipe=job_params.package,
        directory=subpath(output.manifest, parent=True),
    message:
        "Packaging {wildcards.technique} of {wildcards.model} on {wildcards.scenario}"
    shell:
        """
        python "$SNAKETUNE/scripts/package_model.py" \
            --recipe {params.recipe:q} \
            --results results \
            --template "$SNAKETUNE/report/model_card.md.j2" \
            --program "$SNAKETUNE/report/run.py" \
            --lock "$SNAKETUNE/envs/train/requirements.txt" \
            --output-directory {params.directory:q} \
            &> {log:q}
        """
