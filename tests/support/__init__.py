"""What tests share: workspaces to run Snakemake in, small experiments and models, and programs that other environments run."""
