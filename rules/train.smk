"""Fine-tuning: one script, whose recipe names adapter, base precision and engine.

Needs: results/models/{model}/base/, results/tokens/{model}/{scenario}/.
Makes: adapter/ or model/ of each run, with train.jsonl, resources.json and the records.
"""


rule train_adapter:
    """Training {wildcards.technique} of {wildcards.model} on {wildcards.scenario}, seed {wildcards.seed}"""
    input:
        base=f"{BASE}/manifest.json",
        weights=ancient(files_in(BASE, MODEL_FILES)),
        tokens=f"{TOKENS}/manifest.json",
        rows=ancient(files_in(TOKENS, ["train.safetensors", "validation.safetensors"])),
    output:
        weights=files_in(f"{RUN}/adapter", ADAPTER_FILES),
        curve=f"{RUN}/train.jsonl",
        resources=f"{RUN}/resources.json",
        records=files_in(RUN, RECORDS),
    params:
        recipe=training_recipe,
        launcher=launcher,
        base=BASE,
        tokens=TOKENS,
        directory=RUN,
        work="work/training/{model}/{scenario}/{technique}/seed-{seed}",
    log:
        "logs/train/{model}/{scenario}/{technique}/seed-{seed}.log",
    benchmark:
        "logs/benchmarks/train/{model}/{scenario}/{technique}/seed-{seed}.tsv"
    conda:
        "../envs/train/environment.yaml"
    wildcard_constraints:
        technique=one_of(techniques(with_adapter=True)),
    threads: training_cores
    shell:
        """
        {params.launcher} scripts/train.py \
            --recipe {params.recipe:q} \
            --base-directory {params.base:q} \
            --tokens-directory {params.tokens:q} \
            --output-directory {params.directory:q} \
            --work {params.work:q} \
            2>&1 | tee {log:q}
        """


use rule train_adapter as train_all_weights with:
    output:
        weights=files_in(f"{RUN}/model", MODEL_FILES[:3]),
        curve=f"{RUN}/train.jsonl",
        resources=f"{RUN}/resources.json",
        records=files_in(RUN, RECORDS),
    wildcard_constraints:
        technique=one_of(techniques(with_adapter=False)),


use rule train_adapter as train_at_rate with:
    output:
        curve="results/tuning/{model}/{scenario}/{technique}/{rate}/train.jsonl",
    params:
        recipe=lambda wildcards: training_recipe(wildcards, rate=float(wildcards.rate)),
        launcher=launcher,
        base=BASE,
        tokens=TOKENS,
        directory="results/tuning/{model}/{scenario}/{technique}/{rate}",
        work="work/tuning/{model}/{scenario}/{technique}/{rate}",
    log:
        "logs/tune/{model}/{scenario}/{technique}/{rate}.log",
    benchmark:
        "logs/benchmarks/tune/{model}/{scenario}/{technique}/{rate}.tsv"
    wildcard_constraints:
        technique=one_of(MATRIX.techniques),
