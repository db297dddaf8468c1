"""Compare training with TRL, at its defaults and tuned by hand, and measure what DoRA and the loop itself cost.

Each system has a process; all are loaded, and take turns in every round. A turn is an epoch over the
same rows; its figure is trained tokens per CPU second, from the first step to the last. Before that,
losses on equal batches are compared in fp32: without equal losses no ratio is given. Each round is
kept in work/benchmarks/, so that an interrupted run of the same commit goes on, and --rounds may be raised later.
"""

import argparse
import os
import time
from functools import partial
from pathlib import Path
from typing import Any

import turns  # first: it puts the workflow's modules on the path

# isort: split
import machine
from turns import KINDS

from snaketune.core import errors, files
from snaketune.evaluation import speed

TUNED = {"gradient_checkpointing": False}
GROUPED = TUNED | {"train_sampling_strategy": "group_by_length"}
PACKED = TUNED | {"packing": True}
# This project's by technique and precision; TRL's by its options.
OURS = {"ours-fp32": ("lora", "fp32"), "ours-bf16": ("lora", "bf16"), "dora-fp32": ("dora", "fp32")}
TRL: dict[str, dict[str, Any]] = {
    "trl-defaults": {},
    "trl-grouped-fp32": {**GROUPED, "bf16": False},
    "trl-packed-fp32": {**PACKED, "bf16": False},
    "trl-grouped-bf16": {**GROUPED, "bf16": True},
    "trl-packed-bf16": {**PACKED, "bf16": True},
}
# Rows of a batch and of an epoch.
SIZES = {"tiny-phi3": (16, 64), "phi3-36m": (16, 32), "smollm2-135m-instruct": (8, 8)}
STEPS = 2


def load(model: Path, arm: str, threads: int, batch_rows: int, count: int) -> Any:
    # Only in the systems' own processes: it imports torch.
    import trainers

    if arm in OURS:
        return trainers.Ours(model, *OURS[arm], threads, batch_rows, count)
    return trainers.Trl(model, TRL[arm], threads, batch_rows, count)


def model_of(name: str, given: Path | None) -> Path:
    """Return the directory of a model: the built-in Phi-3s with random weights, others as the workflow makes them."""
    if given:
        return given
    content = files.read_yaml(turns.ROOT / f"config/models/{name}.yaml")
    if "build" not in content:
        made = turns.ROOT / f"results/models/{name}/base"
        if not (made / "manifest.json").exists():
            raise errors.UserError(
                f"{made} is missing: make it with `snakemake results/models/{name}/base/manifest.json --configfile config/experiments/smollm2.yaml`, or name another with --model"
            )
        return made
    directory = turns.ROOT / f"work/benchmarks/models/{name}"
    if not (directory / "config.json").exists():
        from transformers import Phi3Config, Phi3ForCausalLM

        build = content["build"]
        context = {"max_position_embeddings": build["context"], "original_max_position_embeddings": build["context"]}
        tokens = {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 1, "tie_word_embeddings": True}
        config = Phi3Config(vocab_size=build["vocabulary"], **context, **tokens, **build["architecture"])
        Phi3ForCausalLM(config).save_pretrained(directory)
    return directory


def compared(servers: dict[str, turns.Turns], kinds: list[str]) -> dict[str, float]:
    """Return how far the losses of a few steps on one batch are from TRL's, in fp32, by kind of rows."""
    if not {"ours-fp32", "trl-grouped-fp32"} <= servers.keys():
        return {}
    found = {}
    for kind in kinds:
        ours, theirs = (servers[arm].ask("losses", kind, STEPS) for arm in ("ours-fp32", "trl-grouped-fp32"))
        found[kind] = turns.difference(ours, theirs)
    print(f"losses on equal batches differ from TRL's by {', '.join(f'{found[kind]:.1e} ({kind})' for kind in kinds)}")
    return found


def missing(kept: dict[str, Any], arms: list[str], rounds: int) -> bool:
    """Say whether a system has yet to be measured in one of so many rounds."""
    done = kept["rounds"][:rounds]
    return len(done) < rounds or any(arm not in of for each in done for of in each.values() for arm in arms)


def take_turns(servers: dict[str, turns.Turns], kept: dict[str, Any], rounds: int, ends: float, path: Path) -> None:
    """Measure what is missing of so many rounds, none begun after ``ends``; an arm that fails or is over its cap is left out from then on."""
    kinds = kept["asked"]["kinds"]

    def one(arm: str, kind: str) -> dict[str, float] | None:
        try:
            taken = servers[arm].ask("turn", kind)
            servers[arm].ask("trim")
            return taken
        except errors.UserError as error:
            # Too slow, or killed for lack of memory.
            kept["left_out"][arm] = str(error)
            print(f"left out: {error}")
            servers.pop(arm).stop()
            return None

    # The first turn imports what is imported late. Memory is given back after each, so one kind of rows is enough.
    for arm in list(servers):
        one(arm, kinds[0])
    size = kept["asked"]["size"]
    for number, order in enumerate(speed.counted(size, list(servers), rounds)):
        if number and time.monotonic() > ends:
            print(f"{size}: {number} of {rounds} rounds fit in --minutes: call it again for more")
            break
        if number == len(kept["rounds"]):
            kept["rounds"].append({kind: {} for kind in kinds})
        for kind in kinds:
            done = kept["rounds"][number][kind]
            for arm in order:
                if arm in servers and arm not in done and (taken := one(arm, kind)):
                    done[arm] = taken
        files.write_json(path, kept)


def costs(servers: dict[str, turns.Turns], kept: dict[str, Any]) -> dict[str, Any]:
    """Return what DoRA keeps for the backward pass over what LoRA does, and the share of `linear`'s peak in each round."""
    found: dict[str, Any] = {}
    for kind in kept["asked"]["kinds"]:
        mine = found.setdefault(kind, {})
        if {"ours-fp32", "dora-fp32"} <= servers.keys():
            saved = {arm: servers[arm].ask("saved_bytes", kind) for arm in ("dora-fp32", "ours-fp32")}
            mine["dora_saved_bytes_over_lora"] = saved["dora-fp32"] / saved["ours-fp32"]
        for arm in ("ours-fp32", "ours-bf16"):
            if done := [r[kind][arm]["share_of_peak"] for r in kept["rounds"] if arm in r[kind]]:
                mine[f"{arm}_share_of_peak"] = speed.spread(done)
    return found


def summary(kept: dict[str, Any]) -> dict[str, Any]:
    """Return rates by arm and, where losses are equal, ratios of ours to the best of TRL's, by kind of rows."""
    turns.refuse_unequal(kept["differences"])
    found: dict[str, Any] = {}
    for kind in kept["asked"]["kinds"]:
        rounds = [
            {arm: one["tokens"] / one["cpu_seconds"] for arm, one in each[kind].items()} for each in kept["rounds"]
        ]
        arms = sorted({arm for rates in rounds for arm in rates})
        rates = {arm: speed.spread([each[arm] for each in rounds if arm in each]) for arm in arms}
        ours, theirs = best_of(rates, "ours-"), best_of(rates, "trl-")
        pairs = {"over_tuned": (ours, theirs), "over_defaults": (ours, "trl-defaults")}
        pairs |= {"over_tuned_fp32": ("ours-fp32", best_of(rates, "trl-", "-fp32"))}
        # Of equal rows, so that DoRA's time over LoRA's is LoRA's rate over DoRA's.
        pairs |= {"dora_time_over_lora": ("ours-fp32", "dora-fp32")}
        found[kind] = {
            "tokens_per_cpu_second": rates,
            "best": {"ours": ours, "trl": theirs},
            **{name: turns.ratios(rounds, *pair) for name, pair in pairs.items() if all(pair)},
        }
    return found


def best_of(rates: dict[str, Any], start: str, end: str = "") -> str | None:
    mine = [arm for arm in rates if arm.startswith(start) and arm.endswith(end) and arm != "trl-defaults"]
    return max(mine, key=lambda arm: rates[arm]["median"], default=None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = [*OURS, *TRL]
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), choices=SIZES, help="models; all by default")
    parser.add_argument("--model", type=Path, help="directory of the model, for one of --sizes")
    parser.add_argument("--arms", nargs="+", default=known, choices=known, help="all by default")
    parser.add_argument("--rounds", type=int, default=3, help="(%(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="of each system (%(default)s)")
    parser.add_argument("--minutes", type=float, default=10, help="no round of a size begins later (%(default)s)")
    parser.add_argument("--cap", type=float, default=120, help="seconds that a turn may take (%(default)s)")
    parser.add_argument("--work", type=Path, default=turns.ROOT / "work/benchmarks/training", help="(%(default)s)")
    parser.add_argument("--output", type=Path, default=turns.ROOT / "benchmarks/training.json", help="(%(default)s)")
    arguments = parser.parse_args()
    if arguments.model and len(arguments.sizes) > 1:
        parser.error("--model needs --sizes with the one name that it stands for")
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    turns.quiet("training")
    turns.add_packages(turns.ROOT / "envs/train/requirements.txt", turns.ROOT / "benchmarks/trl-requirements.txt")
    provenance = turns.provenance()
    half = {"avx512_bf16", "amx_bf16"} & set(provenance["hardware"]["instructions"])
    arms = [arm for arm in arguments.arms if half or not arm.endswith("bf16")]
    results = files.read_json(arguments.output) if arguments.output.exists() else {"sizes": {}}
    for size in arguments.sizes:
        found = measured(size, arms, arguments, provenance["commit"])
        results["sizes"][size] = {**found, **provenance, "threads": arguments.threads}
        files.write_json(arguments.output, results)


def measured(size: str, arms: list[str], arguments: argparse.Namespace, commit: str | None) -> dict[str, Any]:
    batch_rows, count = SIZES[size]
    path, model = arguments.work / f"{size}.json", model_of(size, arguments.model)
    asked = {"commit": commit, "size": size, "threads": arguments.threads, "batch_rows": batch_rows, "count": count}
    kept = turns.kept(path, {**asked, "kinds": list(KINDS), "hardware": machine.hardware()})
    arms = [arm for arm in arms if arm not in kept["left_out"]]
    path.parent.mkdir(parents=True, exist_ok=True)
    servers: dict[str, turns.Turns] = {}
    try:
        for arm in arms if missing(kept, arms, arguments.rounds) else []:
            loader = partial(load, model, arm, arguments.threads, batch_rows, count)
            servers[arm] = turns.Turns(arm, loader, arguments.cap)
        kept["differences"] = compared(servers, list(KINDS)) or kept["differences"]
        turns.refuse_unequal(kept["differences"])
        if servers:
            take_turns(servers, kept, arguments.rounds, time.monotonic() + 60 * arguments.minutes, path)
            kept["costs"] = costs(servers, kept)
    finally:
        for server in servers.values():
            server.stop()
    files.write_json(path, kept)
    found = {name: kept[name] for name in ("differences", "left_out", "costs")}
    return {**found, "rounds": len(kept["rounds"]), "kinds": summary(kept)}


if __name__ == "__main__":
    errors.run(main)
