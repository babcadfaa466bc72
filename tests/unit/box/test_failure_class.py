# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Failure classes: what the evidence says, what it must not be read into, and what is tried again."""

from __future__ import annotations

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box import gpu
from ansible_collections.tenant.gpu.plugins.module_utils.box.failure_class import (
    ADVICE,
    AGAIN,
    CLASSES,
    Evidence,
    classify,
)

XIDS = gpu.FATAL_XIDS


@pytest.mark.parametrize(
    ("seen", "name"),
    [
        (Evidence(1), "code"),
        (Evidence(2, log_tail="train.py: error: unrecognized arguments: --lr"), "code"),
        (Evidence(1, log_tail="Traceback (most recent call last):\nKeyError: 'lr'"), "code"),
        (Evidence(-9), "killed"),
        (Evidence(-9, oom_kills=1), "host_memory"),
        (Evidence(1, oom_kills=2, log_tail="RuntimeError: DataLoader worker (pid 7) is killed"), "host_memory"),
        (Evidence(-9, oom_kills=0), "killed"),
        (Evidence(1, shortages=("0 bytes are free",)), "disk_full"),
        (Evidence(1, log_tail="OSError: [Errno 28] No space left on device"), "disk_full"),
        (Evidence(1, log_tail="RuntimeError: basic_ios::clear: iostream error"), "disk_full"),
        (Evidence(1, log_tail="unexpected pos 448 vs 342"), "disk_full"),
        (Evidence(1, log_tail="torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB"), "gpu_memory"),
        (Evidence(1, log_tail="[rank0]: torch.cuda.OutOfMemoryError: CUDA out of memory."), "gpu_memory"),
        (Evidence(1, xids=(79,), fatal_xids=XIDS), "gpu_fault"),
        (Evidence(1, log_tail="RuntimeError: CUDA error: uncorrectable ECC error encountered"), "gpu_fault"),
        (Evidence(1, xids=(13,), fatal_xids=XIDS), "code"),
        (Evidence(1, log_tail="wandb.errors.errors.CommError: Run initialization has timed out"), "transient"),
        (Evidence(1, log_tail="requests.exceptions.ConnectionError: HTTPSConnectionPool"), "transient"),
        (Evidence(1, log_tail="ConnectionResetError: [Errno 104] Connection reset by peer"), "transient"),
        (Evidence(1, log_tail="torch.distributed.DistNetworkError: The client socket has failed"), "transient"),
        # Metric names and ordinary talk are no errors.
        (Evidence(1, log_tail="val_ConnectionError: 0.02\nval L1Error: 0.3\nValueError: bad"), "code"),
        (Evidence(1, log_tail="epoch 3 OutOfMemoryErrors=0\nKeyError: 'a'"), "code"),
        # What the kernel counted goes before what the trainer says.
        (Evidence(1, oom_kills=1, log_tail="ConnectionResetError: reset"), "host_memory"),
    ],
)
def test_the_class_follows_the_evidence(seen: Evidence, name: str) -> None:
    found = classify(seen)
    assert found is not None
    assert found.name == name
    assert found.evidence
    assert found.again is (name in ("transient", "killed"))


def test_an_end_without_failure_has_no_class() -> None:
    assert classify(Evidence(0, oom_kills=3, log_tail="ConnectionResetError: retried")) is None


def test_every_class_says_what_to_do() -> None:
    assert set(ADVICE) == set(CLASSES)
    assert set(AGAIN) < set(CLASSES)


def test_the_evidence_is_the_last_line_that_says_it() -> None:
    found = classify(Evidence(1, log_tail="ConnectionError: first\nok\nConnectionError: last\nbye"))
    assert found is not None
    assert found.evidence == "its output says: ConnectionError: last"
