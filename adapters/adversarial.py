"""Adversarial examples that `gauntlet examples` wrote, as a data set."""

from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch

from adapters.arrays import samples
from adapters.npz import read_npz
from bench.contracts import Bounds, Dataset, Samples, dataset
from bench.data import locate
from bench.errors import DataError
from bench.levels import dequantised, quantised

ARRAYS = ("original", "adversarial", "label", "crafted", "bounds", "classes")


@dataset("adversarial")
class Adversarial(Dataset):
    """What an attack crafted on one model, to be tried on another; written by `gauntlet examples --to FILE.npz`.

    Inputs float32 in the bounds of the data they were crafted from, with their true labels. part: `crafted`, as the
    attack left them; `quantised`, rounded to 8 bits; `untouched`, the same samples before the attack. A sample that the
    attack did not break is there untouched, unless survivors is false; the group `crafted` tells the two apart. The
    path is as given, or below the data folder.
    """

    splits: ClassVar[tuple[str, ...]] = ("test",)

    path: Path
    part: Literal["crafted", "quantised", "untouched"] = "crafted"
    survivors: bool = True
    split: Literal["test"] = "test"

    def load(self) -> Samples:
        file = locate(str(self.path))
        original, adversarial, label, crafted, ends, classes = read_npz(file, *ARRAYS)
        bounds = Bounds(*map(float, ends))
        rows = np.arange(len(label)) if self.survivors else np.flatnonzero(crafted)
        if not len(rows):
            raise DataError(f"{file}: the attack broke no sample", "use `survivors: true`, or a larger epsilon")
        chosen = (original if self.part == "untouched" else adversarial)[rows]
        if chosen.dtype == np.uint8:
            if self.part == "crafted":
                advice = "use `part: quantised`, or `keep: exact` in the suite that crafts them"
                raise DataError(f"{file}: the examples were kept in 8 bits, not as they were crafted", advice)
            chosen = dequantised(torch.from_numpy(chosen), bounds).numpy()
        elif self.part == "quantised":
            chosen = dequantised(quantised(torch.from_numpy(chosen), bounds), bounds).numpy()
        names = [str(index) for index in range(int(classes))]
        made = samples(chosen, label[rows], str(file), scale=1.0, bounds=bounds, class_names=names)
        made_groups = {"crafted": np.asarray(crafted[rows], dtype=bool)}
        return Samples(
            made.labels, made.fetch, made.input_shape, made.bounds, made.class_names, made.digest, groups=made_groups
        )
