"""Targets that are made only when asked for by name.

If an experiment makes none of a target's files, planning ends with the reason. The inputs are
functions, which Snakemake calls only if the target is asked for.
"""


rule properties:
    input:
        lambda wildcards: required(
            targets.properties(),
            "this experiment has no `properties`: add them, as config/experiments/published-table.yaml does",
        ),


rule package:
    input:
        lambda wildcards: required(
            targets.packages(),
            f"package.precision: {EXPERIMENT.package.precision} is no genai precision of this experiment ({', '.join(MATRIX.genai) or 'it has none'}): add it to `precisions`, or name another",
        ),


rule export_adapters:
    input:
        lambda wildcards: required(
            targets.runtime_adapters(),
            "no adapter of this experiment can be switched at run time: add fp32 to `precisions` and, say, lora to `techniques`",
        ),


rule ai_toolkit:
    input:
        ai_toolkit_params.projects,


rule plan_hosted:
    input:
        lambda wildcards: required(
            targets.hosted_plans(), "no technique of this experiment is hosted: name one in `techniques`"
        ),


rule kaito_manifests:
    input:
        lambda wildcards: required(
            targets.runs("kaito/manifest.json", MATRIX.remote),
            "no technique of this experiment has `platform: {type: kaito}`: name one in `techniques`",
        ),


rule kaito_serving:
    input:
        lambda wildcards: required(
            targets.runs("kaito-serving/manifest.json", SERVED),
            "`kaito` is missing in the experiment, or no technique of it trains LoRA",
        ),
