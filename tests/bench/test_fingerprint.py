import os
import platform
import re

import numpy as np
import psutil
import torch

from bench.fingerprint import _quota, fingerprint, fingerprint_digest


def test_the_fingerprint_says_what_psutil_and_the_libraries_say():
    found = fingerprint()
    assert found["cores"] == len(psutil.Process().cpu_affinity())
    assert found["kernel"] == f"Linux {os.uname().release}"
    assert found["python"] == platform.python_version()
    assert (found["torch"], found["numpy"]) == (torch.__version__, np.__version__)
    assert found["gpu"] == "none" or torch.cuda.is_available()
    assert all(value != "" for value in found.values())


def test_the_number_of_threads_is_a_part_of_it():
    before = torch.get_num_threads()
    one = fingerprint()
    torch.set_num_threads(before + 1)
    try:
        two = fingerprint()
    finally:
        torch.set_num_threads(before)
    assert (one["threads"], two["threads"]) == (before, before + 1)
    assert fingerprint_digest(one) != fingerprint_digest(two)


def test_the_digest_depends_on_every_entry_and_not_on_their_order():
    found = fingerprint()
    digest = fingerprint_digest(found)
    assert re.fullmatch("[0-9a-f]{16}", digest)
    assert fingerprint_digest(dict(reversed(found.items()))) == digest
    for key in found:
        assert fingerprint_digest({**found, key: "something else"}) != digest


def test_the_quota_of_a_control_group_is_in_cores(tmp_path):
    assert _quota(tmp_path) == 0
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert _quota(tmp_path) == 0
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert _quota(tmp_path) == 1.5


def test_the_quota_of_an_old_control_group_is_read_too(tmp_path):
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("50000")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000")
    assert _quota(tmp_path) == 0.5
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("-1")
    assert _quota(tmp_path) == 0
