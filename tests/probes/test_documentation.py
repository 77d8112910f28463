import re
from pathlib import Path

import pytest

from adapters.reference import SmallCnn, SmallCnnBinarised, SmallCnnPruned
from bench import plugins
from bench.contracts import probes
from bench.probes.latency import Latency

DOCS = Path(__file__).parents[2] / "docs"


plugins.load_built_in()
BUILT_IN = [name for name in probes if probes.get(name).__module__.startswith("bench.")]


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_probe_its_figures_and_its_fields_are_documented(name):
    probe = probes.get(name)
    text = (DOCS / "probes.md").read_text()
    for name in (probe.name, *probe.figures(), *probe.model_fields):
        assert f"`{name}`" in text


@pytest.mark.parametrize("field", ["queries", "seconds", "batch_size", "warmup_runs", "warmup_seconds", "warmup_cap"])
def test_the_documented_defaults_of_latency_are_the_ones_it_has(field):
    (documented,) = re.findall(rf"\| `{field}` +\| ([\d.]+)", (DOCS / "probes.md").read_text())
    assert float(documented) == getattr(Latency(), field)


@pytest.mark.parametrize("model", [SmallCnn, SmallCnnBinarised, SmallCnnPruned])
def test_a_reference_model_its_fields_and_its_feature_layers_are_documented(model):
    text = (DOCS / "reference_models.md").read_text()
    for name in (model.name, *model.model_fields):
        assert f"`{name}`" in text
