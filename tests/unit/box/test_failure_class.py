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


SURVIVED = """\
urllib.error.HTTPError: HTTP Error 503: Service Unavailable
Traceback (most recent call last):
  File "train.py", line 4, in fetch
    get(url)
ConnectionError: reset by peer
the shard is fetched again
"""
KEY_ERROR = """\
Traceback (most recent call last):
  File "train.py", line 9, in <module>
    rate = config["lr"]
KeyError: 'lr'
"""
BROKE = """\
[rank0]: Traceback (most recent call last):
[rank0]:   File "train.py", line 4, in fetch
[rank0]:     get(url)
[rank0]: ConnectionResetError: [Errno 104] Connection reset by peer
"""
CAME_OF = """
During handling of the above exception, another exception occurred:

"""
TORCHRUN = """\
Traceback (most recent call last):
  File "torchrun", line 8, in <module>
    sys.exit(main())
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
============================================================
train.py FAILED
"""


@pytest.mark.parametrize(
    ("log_tail", "name"),
    [
        (SURVIVED + KEY_ERROR, "code"),
        (SURVIVED + KEY_ERROR + TORCHRUN, "code"),
        ("Temporary failure in name resolution, trying again\nKeyError: 'lr'", "code"),
        ("HTTP Error 503, trying again\n" + KEY_ERROR, "code"),
        # The error that ended it broke a connection, or came of one that broke.
        (KEY_ERROR + "the default is taken\n" + BROKE, "transient"),
        (KEY_ERROR + BROKE + TORCHRUN, "transient"),
        (BROKE.replace("[rank0]: ", "") + CAME_OF + KEY_ERROR, "transient"),
        # Said by C++ after the traceback of something survived.
        (SURVIVED + "terminate called\n  what(): Watchdog caught collective operation timeout", "transient"),
        # No word of an error's end: everything counts.
        ("HTTP Error 503\ngiving up", "transient"),
        ("requests.exceptions.ConnectionError: pool\nval_L1Error: 0.3\nval_loss_Error: -1e-3", "transient"),
    ],
)
def test_a_connection_that_broke_counts_when_it_ended_the_trainer(log_tail: str, name: str) -> None:
    found = classify(Evidence(1, log_tail=log_tail))
    assert found is not None
    assert found.name == name


def test_an_end_without_failure_has_no_class() -> None:
    assert classify(Evidence(0, oom_kills=3, log_tail="ConnectionResetError: retried")) is None


def test_every_class_says_what_to_do() -> None:
    assert set(ADVICE) == set(CLASSES)
    assert set(AGAIN) < set(CLASSES)
    assert "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True" in ADVICE["gpu_memory"]


def test_the_evidence_is_the_last_line_that_says_it() -> None:
    found = classify(Evidence(1, log_tail="ConnectionError: first\nok\nConnectionError: last\nbye"))
    assert found is not None
    assert found.evidence == "its output says: ConnectionError: last"
