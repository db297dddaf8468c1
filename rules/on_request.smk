"""Targets that are made only when asked for by name: what each stands for is in rules/requests.smk."""


rule package:
    input:
        packages,


rule export_adapters:
    input:
        adapters_apart(),


rule ai_toolkit:
    input:
        ai_toolkit_projects,


rule plan_hosted:
    input:
        hosted_plans(),


rule kaito_manifests:
    input:
        kaito_runs("kaito/manifest.json"),


rule kaito_serving:
    input:
        served_runs(),
