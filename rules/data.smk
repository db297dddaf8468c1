"""Raw text turned into chats, split and checked.

Needs: the locked libraries, a Hugging Face dataset or the user's files.
Makes: results/corpus/, results/data/{scenario}/.
"""


rule collect_documentation:
    output:
        corpus=f"{CORPUS}/documentation.jsonl",
        manifest=f"{CORPUS}/manifest.json",
        provenance=f"{CORPUS}/provenance.json",
    log:
        "logs/collect_documentation.log",
    benchmark:
        "logs/benchmarks/collect_documentation.tsv"
    conda:
        "../envs/train/environment.yaml"
    threads: 2
    resources:
        mem_mb=needs.memory("data"),
        runtime=needs.minutes("data"),
    params:
        recipe=job_params.encode("collect_documentation.py", **EXPERIMENT.corpus.model_dump()),
    message:
        "Collecting the docstrings of the locked libraries"
    shell:
        """
        python "$SNAKETUNE/scripts/collect_documentation.py" \
            --recipe {params.recipe:q} \
            --threads {threads} \
            --output {output.corpus:q} \
            &> {log:q}
        """


rule prepare_data:
    input:
        unpack(inputs.scenario_source),
    output:
        splits=files_in(DATA, [f"{split}.jsonl" for split in SPLITS]),
        card=f"{DATA}/card.json",
        manifest=f"{DATA}/manifest.json",
        provenance=f"{DATA}/provenance.json",
    log:
        "logs/prepare_data/{scenario}.log",
    benchmark:
        "logs/benchmarks/prepare_data/{scenario}.tsv"
    conda:
        "../envs/train/environment.yaml"
    resources:
        mem_mb=needs.memory("data"),
        runtime=needs.minutes("data"),
    params:
        recipe=job_params.data,
        directory=subpath(output.manifest, parent=True),
    message:
        "Preparing the data of {wildcards.scenario}"
    shell:
        """
        python "$SNAKETUNE/scripts/prepare_data.py" \
            --recipe {params.recipe:q} \
            --source {input.source:q} \
            --output-directory {params.directory:q} \
            &> {log:q}
        """


rule tokenize_data:
    input:
        base=f"{BASE}/manifest.json",
        tokenizer=ancient(files_in(BASE, MODEL_FILES[1:])),
        # The card holds hashes of the splits and, unlike the manifest, no digest of the code.
        card=f"{DATA}/card.json",
        splits=ancient(files_in(DATA, [*(f"{split}.jsonl" for split in SPLITS), "manifest.json"])),
    output:
        files_in(TRAINING, [*TRAINING_FILES, RECORDS[1]]),
        files_in(TEST, [*TEST_FILES, *RECORDS]),
        manifest=f"{TRAINING}/manifest.json",
    log:
        "logs/tokenize_data/{model}/{scenario}.log",
    benchmark:
        "logs/benchmarks/tokenize_data/{model}/{scenario}.tsv"
    conda:
        "../envs/train/environment.yaml"
    resources:
        mem_mb=needs.memory("tokens"),
        runtime=needs.minutes("tokens"),
    params:
        recipe=job_params.tokens,
        # Another limit of generated answers re-trains nothing.
        limit=not_a_trigger(job_params.answer_limit),
        base=subpath(input.base, parent=True),
        data=subpath(input.card, parent=True),
        directory=subpath(output.manifest, ancestor=2),
    message:
        "Tokenizing {wildcards.scenario} for {wildcards.model}"
    shell:
        """
        python "$SNAKETUNE/scripts/tokenize_data.py" \
            --recipe {params.recipe:q} \
            --max-new-tokens {params.limit} \
            --base-directory {params.base:q} \
            --data-directory {params.data:q} \
            --output-directory {params.directory:q} \
            &> {log:q}
        """
