"""Certified robustness from records, held against what attacks found on the same samples."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from bench.errors import PluginError
from bench.metrics.robustness import Attacked
from bench.records import Cell


def proofs(cell: Cell) -> NDArray[np.bool_]:
    """(n, k) bool: which samples of a cell are proved at which of its k epsilons; all False where none was tried.

    Raises ValueError where a row has not one verdict per epsilon.
    """
    n, k = cell.table.num_rows, len(cell.epsilons)
    column = cell.table["proved"].combine_chunks()
    if column.null_count == n:
        return np.zeros((n, k), dtype=bool)
    if column.null_count or set(column.value_lengths().to_pylist()) - {k}:
        raise ValueError(f"evaluation '{cell.evaluation}': the records hold not one proof for each of {k} epsilons")
    flat: NDArray[np.bool_] = column.flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(n, k)


def proved_counts(cell: Cell) -> Iterator[tuple[float, int]]:
    """(epsilon, number of proved samples) where there are any."""
    for epsilon, proved in zip(cell.epsilons, proofs(cell).T, strict=True):
        if proved.any():
            yield epsilon, int(proved.sum())


def check_proofs(certified: Iterable[Cell], attacked: Mapping[str, Sequence[tuple[Attacked, Cell]]]) -> None:
    """Raises PluginError with the sample where an attack broke, inside epsilon, what is proved at epsilon.

    certified: cells with proofs. attacked: by norm. Certified accuracy is then never above the worst case over attacks.
    Of a stochastic model both are statements about chances, which a few passes may contradict: it is left out.
    """
    for cell in certified:
        samples = cell.table["sample"].to_numpy()
        for epsilon, proved in zip(cell.epsilons, proofs(cell).T, strict=True):
            for found, other in attacked.get(cell.norm or "", ()):
                if not other.table["kept"].null_count:
                    continue
                broken = found.samples[found.broken_at(epsilon)]
                wrong = np.intersect1d(samples[proved], broken)
                if len(wrong):
                    raise PluginError(
                        f"model '{cell.model}' on '{cell.dataset}': sample {wrong[0]} is proved at {cell.norm} "
                        f"{epsilon:g} by '{cell.evaluation}', and broken there by '{other.evaluation}' "
                        f"({len(wrong)} such samples)",
                        "one of the two is wrong: please report it with the model and this sample",
                    )
