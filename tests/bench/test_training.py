"""A worker that trains: what it hands back beside the weights, and what it passes on."""

from typing import Any

import torch

from bench import plugins
from bench.contracts import Report
from bench.worker import Measured, TrainTask, Worker

ARGS: dict[str, Any] = {
    "variant": "B",
    "width": 4,
    "data": {"dataset": "digits", "split": "train"},
    "train": {"epochs": 3},
}


class Told(Report):
    def __init__(self, state: bytes | None = None) -> None:
        self.state, self.steps, self.asked = state, 0, 0

    def step(self, done: int, total: int, **figures: float) -> None:
        self.steps += 1

    def saved(self) -> bytes | None:
        self.asked += 1
        return self.state


def test_a_worker_hands_back_the_weights_with_a_point_of_each_curve_per_epoch():
    plugins.load_built_in()
    task = TrainTask("key", "b", "binarised", ARGS, None, seed=0, threads=torch.get_num_threads())
    report = Told()
    made = Worker((), lambda key: b"").train(task, report)
    assert isinstance(made, Measured), made
    assert {name: len(curve) for name, curve in made.curves.items()} == {"loss": 3, "accuracy": 3}
    assert all(0 <= value <= 1 for value in made.curves["accuracy"])
    assert report.steps > 30
    assert report.asked == 1, "the training asks what an earlier attempt saved"
