"""The scenarios under LoadGen itself, with short runs; LoadGen's own summary is the judge."""

import time

import pytest
import torch
from torch import nn

from bench.errors import PluginError
from bench.probes._loadgen import parse
from bench.probes.mlperf import MultiStream, Offline, Server, SingleStream
from tests.probes.nets import Wrapped, by_name, noise

DATA = noise((6,), 64)


class Napping(Wrapped):
    """Takes at least 2 ms for a call."""

    rows = 0

    def logits(self, x):
        self.rows += len(x)
        time.sleep(0.002)
        return super().logits(x)


@pytest.fixture(autouse=True)
def _short_warm_up(monkeypatch):
    """It has seen what a query really takes. A busy machine may be slower then: later, LoadGen would get fewer queries
    than fill its time."""
    monkeypatch.setattr("bench.probes.mlperf.warm_up", lambda query, *_: [query() for _ in range(3)] and None)
    monkeypatch.setattr("bench.probes.mlperf.timed", lambda model, x: 2.0 + 0 * len(model.logits(x)))


def measured(probe):
    model = Napping(nn.Linear(6, 10), (6,))
    return by_name(probe.measure(model, DATA, None)), model


def kinds(figure):
    return {flag.partition(":")[0] for flag in figure.flags} - {"contended"}


def test_a_single_stream_run_gives_the_ninetieth_percentile_of_one_query_and_is_valid():
    figures, _ = measured(SingleStream(seconds=0.4))
    assert 2 <= figures["mlperf_ms/single_stream_p90"].value < 1000  # in another unit it would be 0.002 or 2000
    assert figures["mlperf_ms/single_stream_p90"].n >= 64
    assert figures["mlperf_valid/single_stream"].value == 1
    assert kinds(figures["mlperf_valid/single_stream"]) == {"uncertified"}


def test_a_certified_run_has_its_ten_minutes():
    assert SingleStream().least_seconds() == 600


def test_a_multi_stream_query_holds_eight_samples():
    figures, model = measured(MultiStream(seconds=0.4))
    assert figures["mlperf_ms/multi_stream_p99"].value >= 2
    assert figures["mlperf_valid/multi_stream"].value == 1
    assert model.rows - 24 == 8 * figures["mlperf_ms/multi_stream_p99"].n  # 24: of the warm-up


def test_a_server_that_answers_in_time_is_valid_and_one_that_cannot_keep_up_is_invalid_with_the_reason():
    figures, _ = measured(Server(seconds=1.0, queries_per_second=300, bound_ms=60_000))
    assert figures["mlperf_valid/server"].value == 1
    assert figures["mlperf_ms/server_p99"].value >= 2
    late, _ = measured(Server(seconds=1.0, queries_per_second=2000, bound_ms=1))
    assert late["mlperf_valid/server"].value == 0
    assert "invalid" in kinds(late["mlperf_ms/server_p99"])


def test_an_offline_run_answers_at_least_the_samples_that_the_rules_ask_for():
    figures, model = measured(Offline(seconds=0.1, batch_size=1024))
    assert model.rows - 3 * 1024 >= 24_576
    assert figures["mlperf_qps/offline"].value <= 1024 / 0.002
    assert figures["mlperf_valid/offline"].value == 1


def test_what_the_model_raises_under_loadgen_is_raised():
    class Broken(Napping):
        def logits(self, x):
            if self.rows > 2:
                raise RuntimeError("the cable was loose")
            return super().logits(x)

    with pytest.raises(RuntimeError, match="cable"):
        SingleStream(seconds=0.1).measure(Broken(nn.Linear(6, 10), (6,)), DATA, None)


def test_a_log_without_a_verdict_is_refused():
    with pytest.raises(PluginError, match="without a result"):
        parse(':::MLLOG {"key": "loadgen_version", "value": "6"}\nsomething else')


def test_torch_has_no_gradients_in_the_threads_of_loadgen():
    class Watching(Napping):
        def logits(self, x):
            assert not torch.is_grad_enabled()
            return super().logits(x)

    SingleStream(seconds=0.1).measure(Watching(nn.Linear(6, 10), (6,)), DATA, None)
