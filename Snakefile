"""Fine-tune with every technique, measure each on the same data, ship quantized ONNX.

A run is a cell of model × scenario × technique × seed; every file on the way from raw data
to quantized ONNX model is a target. `snakemake` makes them all; `snakemake --help` and
`docs/` say the rest.
"""

from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.utils import min_version

min_version("9.27")
if not Path(workflow.snakefile).is_file():
    raise WorkflowError(
        f"{workflow.snakefile}: of such a source Snakemake keeps no scripts on disk: clone the repository, and give the path of its Snakefile"
    )


include: "rules/setup.smk"
include: "rules/data.smk"
include: "rules/model.smk"
include: "rules/train.smk"
include: "rules/table.smk"
include: "rules/evaluate.smk"
include: "rules/merge.smk"
include: "rules/platforms/ai_toolkit.smk"
include: "rules/report.smk"
include: "rules/on_request.smk"


# Snakemake looks for each file among the outputs of every rule: those that an experiment can't use are left out.
if EXPERIMENT.precisions:

    include: "rules/export.smk"
    include: "rules/parity.smk"
    include: "rules/adapters.smk"


if MATRIX.shipped:

    include: "rules/shipped.smk"


if MATRIX.packaged:

    include: "rules/package.smk"


if EXPERIMENT.benchmark:

    include: "rules/benchmark.smk"


if MATRIX.hosted:

    include: "rules/platforms/hosted.smk"
    include: "rules/platforms/hosted_answers.smk"


if MATRIX.remote or SERVED:

    include: "rules/platforms/kaito.smk"


rule all:
    default_target: True
    input:
        targets.every_file(),


rule export_all:
    input:
        exports=targets.exports("manifest.json"),
        parity=targets.parities(),
        benchmarks=targets.benchmarks(),
        summary=SUMMARY,
        report=REPORT,
        records=files_in("results", ["params.yaml", *RECORDS]),


rule tune:
    input:
        "results/tuning.csv",
