"""An AI Toolkit project for each run that Olive can train.

Needs: results/data/{scenario}/; results/models/{model}/base/ of a model that isn't on the hub.
Makes: ai-toolkit/ of each run, when `ai_toolkit` is requested.
"""

from snaketune.platforms.olive import project
from snaketune.platforms.olive.job_params import AiToolkitParams

ai_toolkit_params = AiToolkitParams(MATRIX, ROOT)


rule write_ai_toolkit:
    input:
        data=f"{DATA}/manifest.json",
        rows=ancient(files_in(DATA, [f"{split}.jsonl" for split in SPLITS[:2]])),
    output:
        files=files_in(f"{RUN}/ai-toolkit", project.FILES),
        manifest=f"{RUN}/ai-toolkit/manifest.json",
        provenance=f"{RUN}/ai-toolkit/provenance.json",
    log:
        "logs/ai_toolkit/{model}/{scenario}/{technique}/seed-{seed}.log",
    benchmark:
        "logs/benchmarks/ai_toolkit/{model}/{scenario}/{technique}/seed-{seed}.tsv"
    wildcard_constraints:
        model=one_of([name for name, model in MATRIX.models.items() if model.hub]),
        technique=one_of(MATRIX.techniques),
    conda:
        "../../envs/train/environment.yaml"
    resources:
        mem_mb=needs.memory("copy"),
        runtime=needs.minutes("copy"),
    params:
        recipe=ai_toolkit_params.project,
        data=subpath(input.data, parent=True),
        base=[],
        directory=subpath(output.manifest, parent=True),
    message:
        "Writing an AI Toolkit project: {wildcards.technique} of {wildcards.model} on {wildcards.scenario}"
    shell:
        """
        python "$SNAKETUNE/scripts/write_ai_toolkit.py" \
            --recipe {params.recipe:q} \
            --data-directory {params.data:q} \
            {params.base:q} \
            --templates "$SNAKETUNE/report/ai_toolkit" \
            --lock "$SNAKETUNE/envs/train/requirements.txt" \
            --output-directory {params.directory:q} \
            &> {log:q}
        """


# A hub model is downloaded by the project itself.
use rule write_ai_toolkit as write_ai_toolkit_and_copy_base with:
    input:
        base=f"{BASE}/manifest.json",
        weights=ancient(files_in(BASE, MODEL_FILES)),
        data=f"{DATA}/manifest.json",
        rows=ancient(files_in(DATA, [f"{split}.jsonl" for split in SPLITS[:2]])),
    output:
        files=files_in(f"{RUN}/ai-toolkit", project.FILES),
        base=files_in(f"{RUN}/ai-toolkit/model-cache/{{model}}", MODEL_FILES),
        manifest=f"{RUN}/ai-toolkit/manifest.json",
        provenance=f"{RUN}/ai-toolkit/provenance.json",
    wildcard_constraints:
        model=one_of([name for name, model in MATRIX.models.items() if not model.hub]),
        technique=one_of(MATRIX.techniques),
    params:
        recipe=ai_toolkit_params.project,
        data=subpath(input.data, parent=True),
        base=["--base-directory", BASE],
        directory=subpath(output.manifest, parent=True),
