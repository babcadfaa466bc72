# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Real trackers for tests: an interpreter that has them, trainers that log to them, a TensorBoard as a panel."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box import process

KEY = "0123456789012345678901234567890123456789"
LOG_TO_WANDB = """\
import sys, wandb
run = wandb.init(id=sys.argv[1], settings=wandb.Settings(x_disable_stats=True))
for step in range(3):
    run.log({"loss": 1.0 / (step + 1)})
run.finish()
"""
LOG_TO_TENSORBOARD = """\
import os, time
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter
writer = EventFileWriter(os.environ["TENANT_TENSORBOARD_DIR"])
summary = Summary(value=[Summary.Value(tag="loss", simple_value=0.5)])
writer.add_event(Event(wall_time=time.time(), step=1, summary=summary))
writer.close()
"""


def python_with(*packages: str) -> str:
    """An interpreter that has the trackers. Absent: an error in CI, NOT RUN elsewhere."""
    if all(importlib.util.find_spec(package) for package in packages):
        return sys.executable
    named = os.environ.get("TENANT_TEST_TRACKERS_PYTHON", "")
    if named:
        return named
    reason = f"NOT RUN: no {' and '.join(packages)}; name an interpreter in TENANT_TEST_TRACKERS_PYTHON"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@contextlib.contextmanager
def tensorboard(python: str, logdir: Path, port: int) -> Iterator[None]:
    command = [python, "-m", "tensorboard.main", "--logdir", str(logdir), "--port", str(port), "--reload_interval", "1"]
    panel = subprocess.Popen(
        [*command, "--host", "127.0.0.1"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    identity = process.identify(panel.pid)
    try:
        yield
    finally:
        process.send_group(identity, 15)
        panel.wait(timeout=600)
