# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.vast.transformations import to_box


@pytest.fixture
def vast_row() -> dict[str, Any]:
    return {
        "id": 4242,
        "label": "gt1/demo/digits-1/g2/0123456789abcdef",
        "actual_status": "running",
        "intended_status": "running",
        "cur_state": "running",
        "public_ipaddr": "127.0.0.1",
        "ports": {"22/tcp": [{"HostPort": "2222"}]},
        "dph_total": 0.31,
        "is_bid": True,
        "dph_base": 0.3,
        "min_bid": 0.2,
        "machine_id": 7,
    }


@pytest.fixture
def vast_item(vast_row: dict[str, Any]) -> Any:
    return to_box(vast_row)
