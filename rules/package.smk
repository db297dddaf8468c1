"""A folder to ship of each run that ends with one model: the model, a program, its model card.

Needs: onnx/{precision}/ of the experiment's package.precision, parity.json, merged/ and the records
of each run; results/summary.csv, results/data/{scenario}/card.json.
Makes: package/ of each run, when `package` is asked for.
"""

CARD = "report/model_card.md.j2"
PROGRAM = "report/run.py"
PACKAGE_FILES = [*GENAI_FILES, "generation_config.json", "README.md", "run.py", "requirements.txt", "SHA256SUMS"]


def packaged():
    """The precision to ship."""
    try:
        return MATRIX.packaged
    except UserError as error:
        raise WorkflowError(str(error)) from None


def packages(wildcards):
    packaged()
    runs = [cell for cell in cells() if cell[2] in MERGED]
    return [f"{RUN.format(model=m, scenario=s, technique=t, seed=n)}/package/manifest.json" for m, s, t, n in runs]


def shipped_model(wildcards):
    """The model of the precision; large files are compared by their manifest."""
    directory = f"{RUN}/onnx/{packaged()}"
    return {"export": f"{directory}/manifest.json", "model": ancient(files_in(directory, GENAI_FILES))}


def told_of_training(wildcards):
    """What the card says of how a model was trained; the untuned one wasn't."""
    return (
        [] if wildcards.technique == "base" else files_in(RUN, ["manifest.json", "provenance.json", "resources.json"])
    )


def package_recipe(wildcards):
    packaged()
    return recipe(
        "package_model.py",
        template=file_digest(ROOT / CARD),
        program=file_digest(ROOT / PROGRAM),
        **MATRIX.package_recipe(wildcards.model, wildcards.scenario, wildcards.technique, int(wildcards.seed)),
    )


rule package_model:
    input:
        unpack(shipped_model),
        evaluation=lambda wildcards: f"{RUN}/evaluation/{packaged()}.json",
        merged=f"{RUN}/merged/manifest.json",
        generation=ancient(f"{RUN}/merged/generation_config.json"),
        parity=f"{RUN}/parity.json",
        training=told_of_training,
        summary=SUMMARY[:2],
        data=f"{DATA}/manifest.json",
        card=ancient(f"{DATA}/card.json"),
        template=ancient(CARD),
        program=ancient(PROGRAM),
    output:
        files=files_in(f"{RUN}/package", PACKAGE_FILES),
        manifest=f"{RUN}/package/manifest.json",
        provenance=f"{RUN}/package/provenance.json",
    log:
        "logs/package/{model}/{scenario}/{technique}/seed-{seed}.log",
    benchmark:
        "logs/benchmarks/package/{model}/{scenario}/{technique}/seed-{seed}.tsv"
    wildcard_constraints:
        technique=one_of(MERGED),
    conda:
        "../envs/train/environment.yaml"
    params:
        recipe=package_recipe,
        directory=subpath(output.manifest, parent=True),
    message:
        "Packaging {wildcards.technique} of {wildcards.model} on {wildcards.scenario}"
    shell:
        """
        python scripts/package_model.py \
            --recipe {params.recipe:q} \
            --results results \
            --template {input.template:q} \
            --program {input.program:q} \
            --lock envs/train/requirements.txt \
            --output-directory {params.directory:q} \
            &> {log:q}
        """


rule package:
    input:
        packages,
