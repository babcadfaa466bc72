# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Law 6 over a real sshd: it lets us in, and what is asked of it never ends."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from loopback_sshd import LoopbackBox, loopback_box

pytestmark = pytest.mark.integration
# Enough for a connection on a busy machine: the question has to reach the box.
LIMIT_S = 20


@pytest.fixture
def silent() -> Iterator[tuple[LoopbackBox, str]]:
    """A box, and a Python of it that is silent for as long as the box is there."""
    with loopback_box() as box:
        python = box.home / "python"
        python.write_text(f"#!/bin/sh\n: >{box.home}/asked\nwhile [ -d {box.home} ]; do sleep 1; done\n")
        python.chmod(0o755)
        yield box, str(python)


def test_a_box_that_never_answers_is_unreachable_when_the_time_is_over(silent: tuple[LoopbackBox, str]) -> None:
    box, python = silent
    arguments = {"path": "/nowhere", "globs": [{"glob": "*"}], "deadline_s": LIMIT_S}
    result = box.ad_hoc("tenant.gpu.manifest", arguments, ansible_python_interpreter=python)
    assert (box.home / "asked").exists()
    assert result["failed"]
    assert (result["failure"]["kind"], result["failure"]["box"]) == ("unreachable", "box1")
    assert f"did not answer within {LIMIT_S} s" in result["msg"]
