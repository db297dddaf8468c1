"""From a file of rows to a plan."""

from support.workspace import Workspace


def test_a_file_of_rows_becomes_an_experiment_that_plans(copy: Workspace) -> None:
    words = [f"row {n} {'sums of numbers' if n % 2 else 'paths of a graph'} {n * n}" for n in range(60)]
    (copy.path / "My rows.csv").write_text(
        "\n".join(["body,kind", *(f"{text},{'ab'[n % 2]}" for n, text in enumerate(words))])
    )
    shown = copy.told("new_experiment.py", "My rows.csv", "--model", "test-phi3")
    assert "kind has few different values" in shown
    assert "train_adapter" in shown
    assert "snakemake --configfile config/experiments/my-rows.yaml" in shown
    assert (copy.path / "results/tokens/test-phi3/my-rows/training/manifest.json").exists()
    again = copy.script("new_experiment.py", "My rows.csv")
    assert again.returncode == 1
    assert again.stderr.endswith(
        "scenarios/my-rows.yaml already exists: choose another --name, or replace it with --force (of make: ARGS=--force)\n"
    )
