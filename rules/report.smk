"""Measurements summarized in one table and one page.

Needs: evaluation/, parity.json and resources.json of each run.
Makes: results/summary.csv, comparisons.json, metrics.json, plots/, report.html, params.yaml and
the manifest of all results; results/tuning.csv.
A recipe that names every run is read from standard input: Linux takes no argument over 131,071 bytes.
"""


rule summarize:
    input:
        figures=targets.evaluations(".json"),
        predictions=targets.evaluations(".predictions.jsonl"),
        curves=targets.trained("train.jsonl"),
        resources=targets.trained("resources.json"),
        manifests=targets.trained("manifest.json") + targets.merged_manifests(),
        exports=targets.exports("manifest.json"),
        hosted=targets.hosted(),
    output:
        summary=report(SUMMARY[0], caption="../report/captions/summary.rst", category="Results"),
        comparisons=SUMMARY[1],
        metrics=SUMMARY[2],
    log:
        "logs/summarize.log",
    benchmark:
        "logs/benchmarks/summarize.tsv"
    conda:
        "../envs/train/environment.yaml"
    resources:
        mem_mb=needs.memory("table"),
        runtime=needs.minutes("table"),
    params:
        recipe=job_params.encode("summarize.py", **MATRIX.summary_recipe()),
    message:
        "Summarizing every run"
    shell:
        """
        python "$SNAKETUNE/scripts/summarize.py" \
            --recipe - \
            --results results \
            --summary {output.summary:q} \
            --comparisons {output.comparisons:q} \
            --metrics {output.metrics:q} \
            &> {log:q} <<< {params.recipe:q}
        """


rule write_report:
    input:
        summary=SUMMARY[0],
        comparisons=SUMMARY[1],
        curves=targets.trained("train.jsonl"),
        resources=targets.trained("resources.json"),
        table=TABLE,
        parity=targets.parities(),
        benchmarks=targets.benchmarks(),
        answers=targets.answers(),
        data=expand(f"{DATA}/{{name}}", scenario=EXPERIMENT.scenarios, name=["card.json", "test.jsonl"]),
        manifests=targets.manifests(),
        pretraining=expand(f"{MODEL}/pretraining.json", model=MATRIX.built),
    output:
        report=report(REPORT, caption="../report/captions/page.rst", category="Results"),
    log:
        "logs/write_report.log",
    benchmark:
        "logs/benchmarks/write_report.tsv"
    localrule: True
    # Snakemake brings the JavaScript of the plots.
    conda:
        "../envs/workflow/environment.yaml"
    resources:
        mem_mb=needs.memory("table"),
        runtime=needs.minutes("table"),
    params:
        recipe=job_params.report,
    message:
        "Writing the report"
    shell:
        """
        python "$SNAKETUNE/scripts/write_report.py" \
            --recipe - \
            --results results \
            --template "$SNAKETUNE/report/report.html.j2" \
            --output {output.report:q} \
            &> {log:q} <<< {params.recipe:q}
        """


rule write_plots:
    input:
        summary=SUMMARY[0],
        curves=targets.trained("train.jsonl"),
    output:
        loss=report(PLOTS[0], caption="../report/captions/loss.rst", category="Results"),
        quality=PLOTS[1],
    log:
        "logs/write_plots.log",
    benchmark:
        "logs/benchmarks/write_plots.tsv"
    localrule: True
    conda:
        "../envs/train/environment.yaml"
    resources:
        mem_mb=needs.memory("table"),
        runtime=needs.minutes("table"),
    params:
        recipe=job_params.encode("write_plots.py", cells=[cell for cell in MATRIX.cells if cell[2] != "base"]),
    message:
        "Writing the tables for `dvc plots`"
    shell:
        """
        python "$SNAKETUNE/scripts/write_plots.py" \
            --recipe - \
            --results results \
            --loss {output.loss:q} \
            --quality {output.quality:q} \
            &> {log:q} <<< {params.recipe:q}
        """


rule record_results:
    input:
        targets.recorded(),
    output:
        params="results/params.yaml",
        manifest="results/manifest.json",
        provenance="results/provenance.json",
    log:
        "logs/record_results.log",
    benchmark:
        "logs/benchmarks/record_results.tsv"
    conda:
        "../envs/train/environment.yaml"
    resources:
        mem_mb=needs.memory("table"),
        runtime=needs.minutes("table"),
    params:
        recipe=job_params.record,
    message:
        "Recording the hash of every result"
    shell:
        """
        python "$SNAKETUNE/scripts/record_results.py" \
            --recipe - \
            --results results \
            &> {log:q} <<< {params.recipe:q}
        """


rule collect_tuning:
    input:
        curves=targets.tuning_curves(),
    output:
        table="results/tuning.csv",
    log:
        "logs/collect_tuning.log",
    benchmark:
        "logs/benchmarks/collect_tuning.tsv"
    localrule: True
    conda:
        "../envs/train/environment.yaml"
    resources:
        mem_mb=needs.memory("table"),
        runtime=needs.minutes("table"),
    params:
        recipe=job_params.encode("collect_tuning.py", grid=EXPERIMENT.learning_rate_grid),
    message:
        "Choosing each technique's learning rate on validation"
    shell:
        """
        python "$SNAKETUNE/scripts/collect_tuning.py" \
            --recipe {params.recipe:q} \
            --curves {input.curves:q} \
            --output {output.table:q} \
            &> {log:q}
        """
