"""Fine-tuning by a KAITO operator: manifests, a Workspace that is created once, and the adapter that it trains.

Needs: results/data/{scenario}/; a kubeconfig and `publish: {confirm: true}` to create anything.
Makes: kaito/ of each run, then adapter/ and the records of a local run; kaito-serving/ on request.
"""

from snaketune.platforms.kaito.job_params import KaitoParams

kaito_params = KaitoParams(MATRIX, ROOT)
KAITO_RUN = {"technique": one_of(MATRIX.remote)}


rule write_kaito:
    input:
        card=f"{DATA}/card.json",
        rows=ancient(files_in(DATA, ["train.jsonl", "manifest.json"])),
    output:
        files=files_in(f"{RUN}/kaito", ["tuning.yaml", "train.jsonl"]),
        manifest=f"{RUN}/kaito/manifest.json",
        provenance=f"{RUN}/kaito/provenance.json",
    log:
        "logs/kaito/{model}/{scenario}/{technique}/seed-{seed}/write.log",
    benchmark:
        "logs/benchmarks/kaito/{model}/{scenario}/{technique}/seed-{seed}/write.tsv"
    wildcard_constraints:
        **KAITO_RUN,
    conda:
        "../../envs/train/environment.yaml"
    resources:
        mem_mb=needs.memory("tokens"),
        runtime=needs.minutes("tokens"),
    params:
        recipe=kaito_params.manifests,
        data=subpath(input.card, parent=True),
        directory=subpath(output.manifest, parent=True),
    message:
        "Writing the manifests of {wildcards.technique} of {wildcards.model} on {wildcards.scenario}, seed {wildcards.seed}"
    shell:
        """
        python "$SNAKETUNE/scripts/write_kaito.py" \
            --recipe {params.recipe:q} \
            --data-directory {params.data:q} \
            --output-directory {params.directory:q} \
            &> {log:q}
        """


rule tune_on_kaito:
    input:
        tuning=f"{RUN}/kaito/tuning.yaml",
        rows=ancient(f"{RUN}/kaito/train.jsonl"),
    output:
        files_in(f"{RUN}/kaito/tuned", [*ADAPTER_FILES, "trainer_state.json"]),
        status=f"{RUN}/kaito/tuned/status.json",
    log:
        "logs/kaito/{model}/{scenario}/{technique}/seed-{seed}/tune.log",
    benchmark:
        "logs/benchmarks/kaito/{model}/{scenario}/{technique}/seed-{seed}/tune.tsv"
    wildcard_constraints:
        **KAITO_RUN,
    # First, because the cluster trains while this machine does other work.
    priority: 1000
    localrule: True
    conda:
        "../../envs/publish/environment.yaml"
    # It only waits, and needs no core.
    threads: 0
    params:
        # No re-run triggers: tuning.yaml has all that decides the adapter, and other code must not train it again.
        platform=not_a_trigger(kaito_params.platform),
        confirm=not_a_trigger(CONFIRM),
        poll=not_a_trigger(EXPERIMENT.publish.poll_seconds),
        directory=subpath(output.status, parent=True),
    message:
        "Tuning {wildcards.technique} of {wildcards.model} on {wildcards.scenario}, seed {wildcards.seed}, with KAITO"
    shell:
        """
        python "$SNAKETUNE/scripts/make_environment.py" --lock "$SNAKETUNE/envs/publish/requirements.txt" --unless kubernetes -- \
            "$SNAKETUNE/scripts/tune_on_kaito.py" \
            --manifest {input.tuning:q} \
            --platform {params.platform:q} \
            --poll-seconds {params.poll} \
            {params.confirm} \
            --output-directory {params.directory:q} \
            2>&1 | tee {log:q}
        """


rule receive_adapter:
    input:
        base=f"{BASE}/manifest.json",
        weights=ancient(files_in(BASE, MODEL_FILES)),
        tokens=f"{TRAINING}/manifest.json",
        rows=ancient(files_in(TRAINING, TRAINING_FILES)),
        asked=f"{RUN}/kaito/manifest.json",
        status=f"{RUN}/kaito/tuned/status.json",
        tuned=files_in(f"{RUN}/kaito/tuned", [*ADAPTER_FILES, "trainer_state.json"]),
    output:
        weights=files_in(f"{RUN}/adapter", ADAPTER_FILES),
        curve=f"{RUN}/train.jsonl",
        resources=f"{RUN}/resources.json",
        manifest=f"{RUN}/manifest.json",
        provenance=f"{RUN}/provenance.json",
    log:
        "logs/kaito/{model}/{scenario}/{technique}/seed-{seed}/receive.log",
    benchmark:
        "logs/benchmarks/kaito/{model}/{scenario}/{technique}/seed-{seed}/receive.tsv"
    wildcard_constraints:
        **KAITO_RUN,
    conda:
        "../../envs/train/environment.yaml"
    threads: needs.rank_cores
    resources:
        mem_mb=needs.memory("torch"),
        runtime=needs.minutes("torch"),
    params:
        recipe=kaito_params.received,
        base=subpath(input.base, parent=True),
        tokens=subpath(input.tokens, parent=True),
        tuned=subpath(input.status, parent=True),
        directory=subpath(output.manifest, parent=True),
    message:
        "Checking the adapter of {wildcards.technique} of {wildcards.model} on {wildcards.scenario}, seed {wildcards.seed}"
    shell:
        """
        python "$SNAKETUNE/scripts/receive_adapter.py" \
            --recipe {params.recipe:q} \
            --base-directory {params.base:q} \
            --tokens-directory {params.tokens:q} \
            --tuned-directory {params.tuned:q} \
            --output-directory {params.directory:q} \
            &> {log:q}
        """


rule serve_on_kaito:
    input:
        trained=f"{RUN}/manifest.json",
        adapter=ancient(files_in(f"{RUN}/adapter", ADAPTER_FILES)),
    output:
        serving=f"{RUN}/kaito-serving/serving.yaml",
        manifest=f"{RUN}/kaito-serving/manifest.json",
        provenance=f"{RUN}/kaito-serving/provenance.json",
    log:
        "logs/kaito/{model}/{scenario}/{technique}/seed-{seed}/serve.log",
    benchmark:
        "logs/benchmarks/kaito/{model}/{scenario}/{technique}/seed-{seed}/serve.tsv"
    wildcard_constraints:
        technique=one_of(SERVED),
    localrule: True
    conda:
        "../../envs/publish/environment.yaml"
    params:
        recipe=kaito_params.serving,
        adapter=subpath(input.trained, parent=True),
        # A re-run trigger here: the Workspace is created once you consent.
        confirm=CONFIRM,
        directory=subpath(output.manifest, parent=True),
    message:
        "Writing the Workspace that serves {wildcards.technique} of {wildcards.model} on {wildcards.scenario}"
    shell:
        """
        python "$SNAKETUNE/scripts/make_environment.py" --lock "$SNAKETUNE/envs/publish/requirements.txt" --unless kubernetes -- \
            "$SNAKETUNE/scripts/serve_on_kaito.py" \
            --recipe {params.recipe:q} \
            --run-directory {params.adapter:q} \
            {params.confirm} \
            --output-directory {params.directory:q} \
            &> {log:q}
        """
