"""From raw text to chats, split and checked.

Needs: the locked libraries, or the user's file.
Makes: results/corpus/, results/data/{scenario}/.
"""


rule collect_documentation:
    """Collecting the docstrings of the locked libraries"""
    output:
        corpus=f"{CORPUS}/documentation.jsonl",
        records=files_in(CORPUS, RECORDS),
    params:
        recipe=recipe("collect_documentation.py", **EXPERIMENT.corpus.model_dump()),
    log:
        "logs/collect_documentation.log",
    benchmark:
        "logs/benchmarks/collect_documentation.tsv"
    conda:
        "../envs/train/environment.yaml"
    threads: 2
    shell:
        """
        python scripts/collect_documentation.py \
            --recipe {params.recipe:q} \
            --threads {threads} \
            --output {output.corpus:q} \
            &> {log:q}
        """


rule prepare_data:
    """Preparing the data of {wildcards.scenario}"""
    input:
        unpack(scenario_source),
    output:
        splits=files_in(DATA, [f"{split}.jsonl" for split in SPLITS]),
        card=f"{DATA}/card.json",
        records=files_in(DATA, RECORDS),
    params:
        recipe=lambda wildcards: recipe("prepare_data.py", scenario=scenario_recipe(wildcards)),
        directory=DATA,
    log:
        "logs/prepare_data/{scenario}.log",
    benchmark:
        "logs/benchmarks/prepare_data/{scenario}.tsv"
    conda:
        "../envs/train/environment.yaml"
    shell:
        """
        python scripts/prepare_data.py \
            --recipe {params.recipe:q} \
            --source {input.source:q} \
            --output-directory {params.directory:q} \
            &> {log:q}
        """


rule tokenize_data:
    """Tokenizing {wildcards.scenario} for {wildcards.model}"""
    input:
        base=f"{BASE}/manifest.json",
        tokenizer=ancient(files_in(BASE, MODEL_FILES[1:])),
        data=f"{DATA}/manifest.json",
        splits=ancient(files_in(DATA, [*(f"{split}.jsonl" for split in SPLITS), "card.json"])),
    output:
        splits=files_in(TOKENS, [f"{split}.safetensors" for split in SPLITS]),
        candidates=f"{TOKENS}/candidates.json",
        records=files_in(TOKENS, RECORDS),
    params:
        recipe=lambda wildcards: recipe("tokenize_data.py", max_tokens=MATRIX.scenarios[wildcards.scenario].max_tokens),
        base=BASE,
        data=DATA,
        directory=TOKENS,
    log:
        "logs/tokenize_data/{model}/{scenario}.log",
    benchmark:
        "logs/benchmarks/tokenize_data/{model}/{scenario}.tsv"
    conda:
        "../envs/train/environment.yaml"
    shell:
        """
        python scripts/tokenize_data.py \
            --recipe {params.recipe:q} \
            --base-directory {params.base:q} \
            --data-directory {params.data:q} \
            --output-directory {params.directory:q} \
            &> {log:q}
        """
