"""The plug-ins of docs/plugins.md, taken from the page: they validate, and do what they say."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")

USED = """
import json
from pathlib import Path

import numpy as np
import torch
from torch import nn

from adapters.torch_classifier import TorchClassifier
from bench import verbs
from bench.contracts import Norm, attacks, datasets, detectors, probes
from bench.measure import attacked
from bench.randomness import SampleRandom

suite = verbs.open_suite(Path("mine.yaml"), []).suite
data = datasets.build("negatives", {"split": "test"}).load()
train = datasets.build("negatives", {"split": "train"}).load()
torch.manual_seed(0)
net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
x, y = train.fetch(np.arange(len(train))), torch.from_numpy(train.labels)
optimiser = torch.optim.Adam(net.parameters(), 0.01)
for _ in range(200):
    optimiser.zero_grad()
    nn.functional.cross_entropy(net(x), y).backward()
    optimiser.step()
model = TorchClassifier(net, input_shape=(1, 8, 8), classes=10)
rows = np.arange(60)
seen = data.fetch(rows)
table = attacked(attacks.build("best_of_noise", {"norm": "linf"}), (0.01, 0.1, 0.4), "p", model, data, rows, 0)
scores = detectors.build("narrow_margin", {}).score(model, seen, SampleRandom.of(0, "d", rows.tolist()))
sure = model.logits(seen).softmax(1).amax(1).detach().double().numpy()
figures = probes.build("layers", {}).measure(model, data, None)
print(json.dumps({
    "models": [spec.name for spec in suite.models],
    "shape": list(data.input_shape),
    "background": float(seen.median()),
    "broken": np.array(table["broken"].to_pylist()).mean(0).tolist(),
    "escaped": any(table["escaped"].to_pylist()),
    "agreement": float(np.corrcoef(-sure, scores)[0, 1]),
    "layers": figures[0].value,
}))
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """What the code of the page gives, in a process of its own: what it registers is none of ours."""
    folder = tmp_path_factory.mktemp("mine")
    for language, name in (("python", "mine.py"), ("yaml", "mine.yaml")):
        (block,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
        (folder / name).write_text(block, encoding="utf-8")
    words = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{USED}"]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_the_suite_of_the_page_validates_with_its_plug_ins(found: dict[str, object]):
    assert found["models"] == ["cnn"]


def test_the_data_set_is_dark_on_light(found: dict[str, object]):
    assert found["shape"] == [1, 8, 8]
    assert found["background"] > 0.5


def test_the_attack_breaks_more_the_further_it_may_go_and_stays_inside(found: dict[str, object]):
    nearly_none, some, most = found["broken"]
    assert nearly_none < some < most
    assert not found["escaped"]


def test_the_detector_finds_unsure_inputs_more_outlying(found: dict[str, object]):
    assert found["agreement"] > 0.5


def test_the_probe_counts_the_layers(found: dict[str, object]):
    assert found["layers"] == 2
