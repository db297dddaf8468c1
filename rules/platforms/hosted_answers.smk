"""Hosted models answer the test rows and are scored like every other backend.

Needs: model.json of each hosted run, results/data/{scenario}/; credentials in the environment.
Makes: evaluation/hosted.json, .predictions.jsonl and .answers.jsonl of each run, and of the base model in untuned/.
"""


rule ask_hosted:
    input:
        model=inputs.hosted_model,
        card=f"{DATA}/card.json",
        rows=ancient(f"{DATA}/test.jsonl"),
    output:
        answers=f"{RUNS}/{{part}}/evaluation/hosted.answers.jsonl",
    log:
        "logs/hosted/{model}/{scenario}/{technique}/{part}/ask.log",
    benchmark:
        "logs/benchmarks/hosted/{model}/{scenario}/{technique}/{part}/ask.tsv"
    wildcard_constraints:
        **OF_HOSTED,
    localrule: True
    conda:
        "../../envs/publish/environment.yaml"
    params:
        recipe=hosted_params.asking,
        work="work/hosted/{model}/{scenario}/{technique}/{part}",
        at_once=not_a_trigger(EXPERIMENT.publish.requests_at_once),
        confirm=not_a_trigger(CONFIRM),
    message:
        "Asking {wildcards.model} of {wildcards.technique} the test rows of {wildcards.scenario}: {wildcards.part}"
    shell:
        """
        python "$SNAKETUNE/scripts/make_environment.py" --lock "$SNAKETUNE/envs/publish/requirements.txt" --unless azure-ai-ml -- \
            "$SNAKETUNE/scripts/ask_hosted.py" \
            --recipe {params.recipe:q} \
            --model {input.model:q} \
            --rows {input.rows:q} \
            --work {params.work:q} \
            --requests-at-once {params.at_once} \
            {params.confirm} \
            --output {output.answers:q} \
            &> {log:q}
        """


rule score_hosted:
    input:
        answers=f"{RUNS}/{{part}}/evaluation/hosted.answers.jsonl",
        card=f"{DATA}/card.json",
        rows=ancient(files_in(DATA, ["train.jsonl", "test.jsonl", "manifest.json"])),
    output:
        figures=f"{RUNS}/{{part}}/evaluation/hosted.json",
        predictions=f"{RUNS}/{{part}}/evaluation/hosted.predictions.jsonl",
    log:
        "logs/hosted/{model}/{scenario}/{technique}/{part}/score.log",
    benchmark:
        "logs/benchmarks/hosted/{model}/{scenario}/{technique}/{part}/score.tsv"
    wildcard_constraints:
        **OF_HOSTED,
    conda:
        "../../envs/train/environment.yaml"
    resources:
        mem_mb=needs.memory("table"),
        runtime=needs.minutes("table"),
    params:
        recipe=hosted_params.scoring,
        data=subpath(input.card, parent=True),
    message:
        "Scoring the answers of {wildcards.technique} of {wildcards.model} on {wildcards.scenario}: {wildcards.part}"
    shell:
        """
        python "$SNAKETUNE/scripts/score_hosted.py" \
            --recipe {params.recipe:q} \
            --data-directory {params.data:q} \
            --answers {input.answers:q} \
            --output {output.figures:q} \
            &> {log:q}
        """
