# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Why a trainer of several boxes ended, from what torchrun wrote (torch 2.13, gloo), and what the box does then."""

from __future__ import annotations

import textwrap

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box import judge
from ansible_collections.tenant.gpu.plugins.module_utils.box.failure_class import Evidence, classify
from ansible_collections.tenant.gpu.plugins.module_utils.box.judge import AttemptFacts, CellFacts, ExitFacts, judge_cell

REPORT = """\
Traceback (most recent call last):
  File "<frozen runpy>", line 198, in _run_module_as_main
    raise ChildFailedError(
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
============================================================
train.py FAILED
------------------------------------------------------------
Root Cause (first observed failure):
[0]:
  time      : 2026-11-21_11:09:29
  rank      : 0 (local_rank: 0)
  exitcode  : {code} (pid: 18555)
  error_file: <N/A>
============================================================
"""
CLOSED = """\
[rank0]: Traceback (most recent call last):
[rank0]:   File "/tmp/exp/w.py", line 5, in <module>
[rank0]:     t=torch.ones(4); dist.all_reduce(t)
[rank0]:                      ^^^^^^^^^^^^^^^^^^
[rank0]: RuntimeError: [/third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer [10.0.0.2]:11185.
"""
STORE_GONE = """\
torch.distributed.DistNetworkError: Failed to recv, got 0 bytes. Connection was likely closed.

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "run.py", line 1032, in <module>
    main()
torch.distributed.elastic.rendezvous.api.RendezvousConnectionError: The connection to the C10d store has failed.
"""
NOT_THERE = """\
Traceback (most recent call last):
  File "c10d_rendezvous_backend.py", line 150, in _create_tcp_store
torch.distributed.DistNetworkError: The client socket has timed out after 20000ms while trying to connect to (x, 29500).

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "run.py", line 1032, in <module>
torch.distributed.elastic.rendezvous.api.RendezvousConnectionError: The connection to the C10d store has failed.
"""
NOT_MET = """\
Traceback (most recent call last):
  File "dynamic_rendezvous.py", line 670, in run
    raise RendezvousTimeoutError
torch.distributed.elastic.rendezvous.api.RendezvousTimeoutError
"""
OWN = """\
[rank1]: Traceback (most recent call last):
[rank1]:   File "train.py", line 9, in <module>
[rank1]: ValueError: own bug: 3
"""


@pytest.mark.parametrize(
    ("log", "name"),
    [
        (CLOSED + REPORT.format(code=1), "peer_lost"),
        (STORE_GONE, "peer_lost"),
        (REPORT.format(code=30), "peer_lost"),
        (NOT_THERE, "peers_absent"),
        (NOT_MET, "peers_absent"),
        # Its own fault, and the noise of the neighbours that it brought down.
        (OWN + REPORT.format(code=1), "code"),
        (OWN + CLOSED + REPORT.format(code=1), "code"),
        (REPORT.format(code=1), "code"),
        (REPORT.format(code=-9), "killed"),
        ("torch.OutOfMemoryError: CUDA out of memory.\n" + CLOSED, "gpu_memory"),
    ],
)
def test_the_end_of_a_node_is_told_from_what_torchrun_wrote(log: str, name: str) -> None:
    found = classify(Evidence(1, log_tail=textwrap.dedent(log), together=True))
    assert found is not None
    assert found.name == name


def test_counters_go_before_words_and_a_single_box_has_no_peers() -> None:
    found = classify(Evidence(1, oom_kills=1, log_tail=CLOSED, together=True))
    assert found is not None
    assert found.name == "host_memory"
    found = classify(Evidence(1, log_tail=STORE_GONE))
    assert found is not None
    assert found.name == "transient"
    assert classify(Evidence(0, log_tail=CLOSED, together=True)) is None


# --- what follows -----------------------------------------------------------------------------------------------------

LOST = "peer_lost"
ABSENT = "peers_absent"


def cell(*ends: tuple[str, float], saved: bool = False, retries: int = 1, forgiven: int = 0) -> CellFacts:
    attempts = tuple(
        AttemptFacts(
            number,
            phase=judge.FAILED,
            begun=True,
            exit=ExitFacts(40, 1, failure=why, seconds=seconds),
            saved=saved,
            why=why,
        )
        for number, (why, seconds) in enumerate(ends, 1)
    )
    return CellFacts("r", "c", attempts, len(attempts), retries, forgiven, wait_s=1800.0)


@pytest.mark.parametrize(
    ("facts", "state"),
    [
        # However often a neighbour is lost, it is no failure of this box.
        (cell(*[(LOST, 2000.0)] * 40, retries=0), judge.PREEMPTED_STATE),
        (cell(*[(LOST, 30.0)] * 40, saved=True, retries=0), judge.PREEMPTED_STATE),
        (cell(*[(LOST, 30.0)] * 4), judge.PREEMPTED_STATE),
        # Boxes that meet and part at once, over and over, would bill for ever.
        (cell(*[(LOST, 30.0)] * 5), judge.FAILED),
        (cell(*[(LOST, 30.0)] * 5, forgiven=5), judge.QUEUED),
        # It waits, in one attempt or in several, but not for ever.
        (cell((ABSENT, 300.0)), judge.PREEMPTED_STATE),
        (cell(*[(ABSENT, 300.0)] * 5), judge.PREEMPTED_STATE),
        (cell(*[(ABSENT, 300.0)] * 6), judge.FAILED),
        (cell((ABSENT, 1800.0)), judge.FAILED),
        (cell(*[(ABSENT, 2900.0)] * 2), judge.FAILED),
        # Hours of work whose end torch puts down to the rendezvous were no wait.
        (cell((ABSENT, 9000.0)), judge.PREEMPTED_STATE),
        # Having met ends the waiting.
        (cell(*[(ABSENT, 300.0)] * 5, (LOST, 2500.0), (ABSENT, 300.0)), judge.PREEMPTED_STATE),
        (cell((LOST, 2500.0), ("code", 3.0)), judge.FAILED),
    ],
)
def test_a_box_waits_for_the_others_within_limits(facts: CellFacts, state: str) -> None:
    verdict = judge_cell(facts)
    assert verdict.state == state
    assert verdict.next == (judge.NOTHING if state == judge.FAILED else judge.RUN)


def test_a_box_that_gave_up_waiting_goes_on_at_the_next_train() -> None:
    assert judge.heals_by_itself(cell((ABSENT, 1800.0)).attempts[-1])
    assert not judge.heals_by_itself(cell(("code", 1.0)).attempts[-1])
    assert "did not come within 1800 s" in judge_cell(cell((ABSENT, 1800.0))).why
