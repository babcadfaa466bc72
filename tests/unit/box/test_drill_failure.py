# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What a drill that did not pass tells the person who asked for it."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.resume_drill import failure_of
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import BoxIdentity

IDENTITY = BoxIdentity("vision", "b1", 1, "77")


@pytest.mark.parametrize(
    ("reason", "claim", "fix"),
    [
        ("started_again", "run digits does not survive a kill: it is so", "save into TENANT_CHECKPOINT_DIR"),
        ("no_losses", "nothing shows that run digits survives a kill: it is so", "`progress` of the run spec"),
        ("unclear", "nothing shows that run digits survives a kill: it is so", "name each checkpoint by its step"),
        ("no_metrics", "nothing shows that run digits survives a kill: it is so", "`progress` of the run spec"),
        ("ended_early", "nothing shows that run digits survives a kill: it is so", "give the drilled cell more steps"),
    ],
)
def test_what_could_not_be_seen_is_not_called_a_run_that_does_not_resume(reason: str, claim: str, fix: str) -> None:
    verdict: dict[str, Any] = {"passed": False, "reason": reason, "why": "it is so", "kept": "/data/drills/digits"}
    failure = failure_of(IDENTITY, "digits", verdict)
    assert failure is not None
    told = failure.as_result()
    assert claim in told["msg"]
    assert fix in str(told)
    assert "/data/drills/digits" in str(told)
    assert failure_of(IDENTITY, "digits", {"passed": True}) is None
