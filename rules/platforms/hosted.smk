"""Fine-tuning by hosted services: rows are uploaded, a job is started once, and its results are fetched.

Needs: results/data/{scenario}/; credentials in the environment, and `publish: {confirm: true}`.
Makes: rows/ of each hosted technique; job.json, model.json, resources.json, … of each run.
"""

from snaketune.platforms.hosted.job_params import HostedParams

hosted_params = HostedParams(MATRIX, ROOT)
OF_HOSTED = {
    "model": one_of(sorted({one.row_model for one in MATRIX.hosted.values()})),
    "technique": one_of(MATRIX.hosted),
    "part": r"seed-\d+|untuned",
}


rule convert_hosted:
    input:
        card=f"{DATA}/card.json",
        rows=ancient(files_in(DATA, ["train.jsonl", "validation.jsonl", "manifest.json"])),
    output:
        rows=files_in(f"{RUNS}/rows", ["train.jsonl", "validation.jsonl"]),
        manifest=f"{RUNS}/rows/manifest.json",
        provenance=f"{RUNS}/rows/provenance.json",
    log:
        "logs/hosted/{model}/{scenario}/{technique}/convert.log",
    benchmark:
        "logs/benchmarks/hosted/{model}/{scenario}/{technique}/convert.tsv"
    wildcard_constraints:
        **OF_HOSTED,
    conda:
        "../../envs/train/environment.yaml"
    resources:
        mem_mb=needs.memory("tokens"),
        runtime=needs.minutes("tokens"),
    params:
        recipe=hosted_params.rows,
        data=subpath(input.card, parent=True),
        directory=subpath(output.manifest, parent=True),
    message:
        "Converting the rows of {wildcards.scenario} for {wildcards.technique}"
    shell:
        """
        python "$SNAKETUNE/scripts/convert_hosted.py" \
            --recipe {params.recipe:q} \
            --data-directory {params.data:q} \
            --output-directory {params.directory:q} \
            &> {log:q}
        """


rule submit_hosted:
    input:
        rows=ancient(files_in(f"{RUNS}/rows", ["train.jsonl", "validation.jsonl"])),
        manifest=f"{RUNS}/rows/manifest.json",
    output:
        job=f"{RUNS}/seed-{{seed}}/job.json",
    log:
        "logs/hosted/{model}/{scenario}/{technique}/seed-{seed}/submit.log",
    benchmark:
        "logs/benchmarks/hosted/{model}/{scenario}/{technique}/seed-{seed}/submit.tsv"
    wildcard_constraints:
        **OF_HOSTED,
    # First, because services train while this machine does other work.
    priority: 1000
    localrule: True
    conda:
        "../../envs/publish/environment.yaml"
    params:
        recipe=hosted_params.submission,
        rows=subpath(input.manifest, parent=True),
        confirm=not_a_trigger(CONFIRM),
    message:
        "Starting {wildcards.technique} of {wildcards.model} on {wildcards.scenario}, seed {wildcards.seed}"
    shell:
        """
        python "$SNAKETUNE/scripts/make_environment.py" --lock "$SNAKETUNE/envs/publish/requirements.txt" --unless azure-ai-ml -- \
            "$SNAKETUNE/scripts/submit_hosted.py" \
            --recipe {params.recipe:q} \
            --data-directory {params.rows:q} \
            {params.confirm} \
            --output {output.job:q} \
            &> {log:q}
        """


use rule submit_hosted as plan_hosted_run with:
    output:
        job=f"{RUNS}/seed-{{seed}}/plan.json",
    log:
        "logs/hosted/{model}/{scenario}/{technique}/seed-{seed}/plan.log",
    benchmark:
        "logs/benchmarks/hosted/{model}/{scenario}/{technique}/seed-{seed}/plan.tsv"
    params:
        recipe=hosted_params.plan,
        rows=subpath(input.manifest, parent=True),
        confirm="--dry-run",
    message:
        "Planning {wildcards.technique} of {wildcards.model} on {wildcards.scenario}: nothing is sent"


rule wait_hosted:
    input:
        job=f"{RUNS}/seed-{{seed}}/job.json",
    output:
        finished=f"{RUNS}/seed-{{seed}}/finished.json",
        events=f"{RUNS}/seed-{{seed}}/events.jsonl",
    log:
        "logs/hosted/{model}/{scenario}/{technique}/seed-{seed}/wait.log",
    benchmark:
        "logs/benchmarks/hosted/{model}/{scenario}/{technique}/seed-{seed}/wait.tsv"
    wildcard_constraints:
        **OF_HOSTED,
    localrule: True
    conda:
        "../../envs/publish/environment.yaml"
    # It only waits, and needs no core.
    threads: 0
    resources:
        hosted_waits=1,
    params:
        recipe=hosted_params.wait,
        poll=not_a_trigger(EXPERIMENT.publish.poll_seconds),
    message:
        "Waiting for {wildcards.technique} of {wildcards.model} on {wildcards.scenario}, seed {wildcards.seed}"
    shell:
        """
        python "$SNAKETUNE/scripts/make_environment.py" --lock "$SNAKETUNE/envs/publish/requirements.txt" --unless azure-ai-ml -- \
            "$SNAKETUNE/scripts/wait_hosted.py" \
            --recipe {params.recipe:q} \
            --job {input.job:q} \
            --poll-seconds {params.poll} \
            --output {output.finished:q} \
            --events {output.events:q} \
            2>&1 | tee {log:q}
        """


rule fetch_hosted:
    input:
        rows=f"{RUNS}/rows/manifest.json",
        job=f"{RUNS}/seed-{{seed}}/job.json",
        finished=f"{RUNS}/seed-{{seed}}/finished.json",
        events=f"{RUNS}/seed-{{seed}}/events.jsonl",
    output:
        files_in(f"{RUNS}/seed-{{seed}}", ["train.jsonl", "resources.json", "model.json", "provenance.json"]),
        manifest=f"{RUNS}/seed-{{seed}}/manifest.json",
    log:
        "logs/hosted/{model}/{scenario}/{technique}/seed-{seed}/fetch.log",
    benchmark:
        "logs/benchmarks/hosted/{model}/{scenario}/{technique}/seed-{seed}/fetch.tsv"
    wildcard_constraints:
        **OF_HOSTED,
    localrule: True
    conda:
        "../../envs/publish/environment.yaml"
    params:
        recipe=hosted_params.fetch,
        rows=subpath(input.rows, parent=True),
        directory=subpath(output.manifest, parent=True),
    message:
        "Fetching the results of {wildcards.technique} of {wildcards.model} on {wildcards.scenario}"
    shell:
        """
        python "$SNAKETUNE/scripts/make_environment.py" --lock "$SNAKETUNE/envs/publish/requirements.txt" --unless azure-ai-ml -- \
            "$SNAKETUNE/scripts/fetch_hosted.py" \
            --recipe {params.recipe:q} \
            --run-directory {params.directory:q} \
            --data-directory {params.rows:q} \
            &> {log:q}
        """
