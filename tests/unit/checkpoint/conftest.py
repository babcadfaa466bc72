# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def own_signal_handler() -> Iterator[None]:
    """The helper takes SIGTERM over; pytest gets it back."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)
