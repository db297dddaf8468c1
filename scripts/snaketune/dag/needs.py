"""What each kind of job that isn't training needs, in bytes and seconds, by the parameters of its model."""

import math
from dataclasses import dataclass

from snaketune.dag.estimates import FLOAT


@dataclass(frozen=True)
class Need:
    """The need of a job that isn't training: ``copies`` counts fp32 models, and time grows with the model's size."""

    memory: float
    copies: float = 0
    minutes: float = 10
    minutes_of_gigabyte: float = 0

    def bytes(self, parameters: int) -> float:
        return self.memory + self.copies * FLOAT * parameters

    def seconds(self, parameters: int) -> float:
        return 60 * (self.minutes + self.minutes_of_gigabyte * FLOAT * parameters / 1e9)


# Memory without a model is above the largest peak seen; copies follow from what each script holds at once.
NEEDS = {
    "table": Need(500e6),
    "data": Need(1000e6, minutes=30),
    "tokens": Need(500e6, minutes=30),
    "fetch": Need(600e6, 1, 30, 10),
    "copy": Need(200e6, 0, 10, 5),
    "merge": Need(700e6, 3, 15, 5),
    "torch": Need(900e6, 2, 30, 60),
    "onnx": Need(400e6, 2, 30, 60),
    "export": Need(700e6, 5, 45, 10),
    "quantize": Need(400e6, 4, 30, 20),
    "genai": Need(900e6, 4, 45, 20),
    "auto": Need(1500e6, 5, 45, 60),
    "parity": Need(500e6, 0, 20),
    "benchmark": Need(1200e6, 3, 60, 60),
}


def megabytes(needed: float) -> int:
    return math.ceil(needed / 1e6)


def minutes(seconds: float) -> int:
    return math.ceil(seconds / 60)
