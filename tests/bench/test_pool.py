"""What a worker's process looks at before it takes a task."""

import pytest
import torch

from bench import pool
from bench.errors import ClusterError


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here, and torch sees it")
def test_a_worker_that_is_given_a_gpu_which_torch_does_not_see_says_so_and_does_not_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pool.ray, "get_gpu_ids", lambda: [0])
    with pytest.raises(ClusterError, match="torch sees none there"):
        pool._Actor([])
