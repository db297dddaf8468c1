"""Every tracker, by its real package, is told each step of a training, which gives the same bytes as without."""

import csv
import struct
import sys
from pathlib import Path
from typing import Any, get_args

import mlflow
import pytest
from support.training_runs import command, curve, recipe_of, weights, write_inputs
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb.proto.wandb_internal_pb2 import Record

import train
from snaketune.config.trackers import Tracker, require
from snaketune.core.errors import UserError
from snaketune.training.tracking import SETTINGS

NAMES = get_args(Tracker)


def told_tensorboard(place: Path) -> Any:
    (events,) = place.glob("*.tfevents.*")
    seen = EventAccumulator(str(events)).Reload()
    return {one.step: one.value for one in seen.Scalars("loss")}, seen.Tags()["scalars"]


def told_mlflow() -> Any:
    (run,) = mlflow.search_runs(search_all_experiments=True, output_format="list")
    assert run.data.params["adapter.type"] == "lora" and run.info.status == "FINISHED"
    found = mlflow.MlflowClient().get_metric_history(run.info.run_id, "loss")
    return {one.step: one.value for one in found}, list(run.data.metrics)


def told_wandb(file: Path) -> Any:
    # A log of LevelDB: after 7 bytes, records with checksum, length and kind. A small one isn't split into blocks.
    data, place, steps = file.read_bytes(), 7, dict[int, dict[str, float]]()
    while place < len(data):
        length, kind = struct.unpack_from("<HB", data, place + 4)
        assert kind == 1
        record = Record.FromString(data[place + 7 : place + 7 + length])
        place += 7 + length
        if record.WhichOneof("record_type") == "history":
            values = {item.key or item.nested_key[0]: float(item.value_json) for item in record.history.item}
            steps[int(values["_step"])] = values
    return {step: values["loss"] for step, values in steps.items()}, list(steps[max(steps)])


def told_dvclive(place: Path) -> Any:
    rows = csv.DictReader((place / "loss.tsv").open(), delimiter="\t")
    return {int(row["step"]): float(row["loss"]) for row in rows}, [one.stem for one in place.iterdir()]


def test_every_tracker_is_told_each_step_and_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    write_inputs(tmp_path)
    for place, options in (("tracked", ["--track", *NAMES]), ("plain", [])):
        monkeypatch.setattr(sys, "argv", [*command(tmp_path, tmp_path / place, recipe_of("lora")), *options])
        train.main()
    assert weights(tmp_path / "tracked") == weights(tmp_path / "plain")
    log = curve(tmp_path / "tracked")
    assert log == curve(tmp_path / "plain")
    names = "/".join((tmp_path / "tracked/run").parts[-4:])
    root = Path("work/tracking")
    (offline,) = root.glob("wandb/offline-run-*/*.wandb")
    for found, metrics in (
        told_tensorboard(root / "tensorboard" / names),
        told_mlflow(),
        told_wandb(offline),
        told_dvclive(root / "dvclive" / names / "plots/metrics"),
    ):
        assert found == pytest.approx({one["step"]: one["loss"] for one in log}, rel=1e-6)
        assert {"loss", "learning_rate", "tokens_per_second", "validation_loss"} <= set(metrics)
    assert not Path("mlruns").exists()


def test_one_that_isnt_installed_is_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("snaketune.config.trackers.find_spec", {"dvclive": True}.get)
    with pytest.raises(
        UserError, match=r"tracking: mlflow, wandb isn't installed.*pip install --requirement .*envs/track"
    ):
        require(["mlflow", "dvclive", "wandb"])
