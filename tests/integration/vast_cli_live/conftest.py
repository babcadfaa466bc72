# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What the official client's live tests ask of their surroundings: the client itself, pointed to a marketplace."""

from __future__ import annotations

import os
from typing import Any

import pytest

# They are for a run of their own, which says whom to ask.
collect_ignore_glob = [] if os.environ.get("GPU_TENANT_VAST_CLI_LIVE") else ["test_*.py"]


@pytest.fixture(scope="session")
def live_client() -> Any:
    from vastai.api.client import VastClient

    return VastClient(api_key=os.environ["VAST_API_KEY"])
