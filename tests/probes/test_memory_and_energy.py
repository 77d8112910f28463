import mmap
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import nn

from bench.contracts import Loading
from bench.errors import PluginError
from bench.memory import loading, peak
from bench.probes._meters import nvml, rapl
from bench.probes.energy import Energy
from bench.probes.memory import Memory
from tests.probes.nets import WithoutModule, Wrapped, by_name, noise
from tests.probes.nvml import with_nvml

MIB = 2**20


class Hungry(Wrapped):
    """Holds 64 MiB while it answers."""

    def logits(self, x):
        filled(64 * MIB)
        return super().logits(x)


def test_the_peak_of_inference_is_what_the_model_held_while_it_answered():
    model = Hungry(nn.Linear(6, 10), (6,))
    found = [by_name(Memory().measure(model, noise((6,)), None)) for _ in range(5)]
    assert any(60 * MIB <= figures["memory_bytes/inference"].value <= 100 * MIB for figures in found)
    assert found[0]["memory_bytes/device"].value is None
    assert found[0]["memory_bytes/device"].flags == ("unavailable: the model runs on the CPU",)


def filled(size: int) -> None:
    """Take so many fresh bytes of the system, write to them, and give them back. Past malloc, which may still hold as
    many that an earlier test has freed."""
    with mmap.mmap(-1, size) as held:
        for page in range(0, size, mmap.PAGESIZE):
            held[page] = 1


def once_between(low: int, high: int, measure: Callable[[], int | None]) -> bool:
    """In MiB, one time of five: the system may take memory back meanwhile, and a library may take some for good."""
    return any(low * MIB <= (measure() or 0) <= high * MIB for _ in range(5))


def test_the_peak_is_seen_even_after_the_memory_was_given_back():
    def measured() -> int | None:
        with peak() as told:
            filled(64 * MIB)
        return told()

    assert once_between(60, 120, measured)


def test_what_loading_took_is_told_by_the_engine_and_reported():
    model = Wrapped(nn.Linear(6, 10), (6,))
    assert by_name(Memory().measure(model, noise((6,)), None))["memory_bytes/load"].value is None

    def measured() -> int | None:
        with loading() as took:
            filled(32 * MIB)
        model.loading = took()
        return model.loading.peak_bytes

    assert once_between(28, 64, measured)
    assert by_name(Memory().measure(model, noise((6,)), None))["memory_bytes/load"].value == model.loading.peak_bytes


def test_a_system_that_does_not_tell_gives_an_empty_cell_with_the_reason(monkeypatch):
    monkeypatch.setattr("bench.memory._PROCESS", Path("/nowhere"))
    model = Wrapped(nn.Linear(6, 10), (6,))
    model.loading = Loading(0.1, None)
    figures = by_name(Memory().measure(model, noise((6,)), None))
    for name in ("load", "inference"):
        assert figures[f"memory_bytes/{name}"].value is None
        assert "high-water mark" in figures[f"memory_bytes/{name}"].flags[0]


def test_the_analytic_figure_is_all_weights_and_the_largest_layer_in_and_out():
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10, bias=False))
    figures = by_name(Memory(batch_size=2).measure(Wrapped(net, (1, 8, 8)), noise((1, 8, 8)), None))
    weights = 4 * (36 + 4 + 1440)
    assert figures["memory_bytes/analytic"].value == weights + 4 * 2 * (144 + 144)  # ReLU: 144 in, 144 out
    assert by_name(Memory().measure(WithoutModule(), noise((3, 4, 4)), None))["memory_bytes/analytic"].value is None


# --- energy -----------------------------------------------------------------------------------------------------------


def powercap(root: Path, *packages: tuple[int, int]) -> Path:
    for number, (energy, wrap) in enumerate(packages):
        zone = root / f"intel-rapl:{number}"
        zone.mkdir(parents=True)
        (zone / "energy_uj").write_text(str(energy))
        (zone / "max_energy_range_uj").write_text(str(wrap))
    core = root / "intel-rapl:0:0"  # a part of package 0
    core.mkdir()
    (core / "energy_uj").write_text("999999999")
    return root


def test_rapl_adds_the_packages_leaves_out_their_parts_and_counts_through_a_wrap_around(tmp_path):
    meter = rapl(powercap(tmp_path, (9_000_000, 10_000_000), (1_000_000, 10_000_000)))
    before = meter.read()
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("500000")  # started again at 0: 1.5 J
    (tmp_path / "intel-rapl:1" / "energy_uj").write_text("3000000")  # 2 J
    assert meter.read() - before == pytest.approx(3.5)


def test_without_a_counter_the_cells_are_empty_and_say_why(tmp_path, monkeypatch):
    monkeypatch.setattr("bench.probes.energy.rapl", lambda: rapl(tmp_path))
    for figure in Energy(seconds=0.01).measure(Wrapped(nn.Linear(6, 10), (6,)), noise((6,)), None):
        assert figure.value is None
        assert figure.flags[0].startswith("unavailable: this machine has no RAPL counter")


def test_joules_are_divided_by_the_inputs_and_the_source_is_named(tmp_path, monkeypatch):
    zone = powercap(tmp_path, (0, 10**9)) / "intel-rapl:0" / "energy_uj"

    class Burning(Wrapped):
        def logits(self, x):
            zone.write_text(str(int(zone.read_text()) + 2_000_000 * len(x)))  # 2 J per input
            return super().logits(x)

    monkeypatch.setattr("bench.probes.energy.rapl", lambda: rapl(tmp_path))
    figures = by_name(Energy(seconds=0.01, batch_size=3).measure(Burning(nn.Linear(6, 10), (6,)), noise((6,)), None))
    assert figures["energy_j/input"].value == pytest.approx(2)
    assert figures["energy_j/input"].flags == ("source: RAPL, processor packages",)
    assert figures["energy_w"].value > 0


def test_nvml_gives_joules_of_the_gpu_of_the_model_and_its_refusal_is_told(monkeypatch):
    fake = with_nvml(monkeypatch)
    assert nvml("cuda:0").read() == 5.0  # from millijoules
    fake.refused.add("nvmlDeviceGetTotalEnergyConsumption")
    with pytest.raises(PluginError, match="no energy: Not Supported"):
        nvml("cuda:0")


def test_nvml_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(PluginError, match="nvidia-ml-py"):
        nvml("cuda:0")
