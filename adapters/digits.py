"""scikit-learn's digits: real data that every installation has."""

from typing import ClassVar, Literal

import numpy as np
from sklearn.datasets import load_digits

from adapters.arrays import samples
from bench.contracts import Dataset, Samples, dataset
from bench.data import subset

TEST_SIZE = 450  # of 1,797: a quarter, rounded up


@dataset("digits")
class Digits(Dataset):
    """1,797 real handwritten digits, 8×8 grey, inside scikit-learn: nothing to download.

    Inputs (1, 8, 8) float32, value / 16, in [0, 1]; ten classes. test: 450 images, train: the other 1,347; the split
    is fixed, stratified, by `bench.data.subset` with seed 0. No two of the images are equal. The images are the test
    part of UCI's "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak, 1998).
    """

    requires: ClassVar[tuple[str, ...]] = ("torch", "scikit-learn")

    split: Literal["train", "test"] = "test"

    def load(self) -> Samples:
        bunch = load_digits()
        images = bunch.images.astype(np.uint8)[:, np.newaxis]
        labels = bunch.target.astype(np.int64)
        test = np.zeros(len(labels), dtype=bool)
        test[subset(labels, TEST_SIZE, stratified=True, seed=0)] = True
        rows = test if self.split == "test" else ~test
        names = tuple(str(digit) for digit in range(10))
        return samples(images[rows], labels[rows], f"digits/{self.split}", scale=16.0, class_names=names)
