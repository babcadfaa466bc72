# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The markets by their names, each read only when it is asked for."""

from __future__ import annotations

import subprocess
import sys

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.markets import MARKETS, check_driver


def test_each_market_goes_by_its_own_name() -> None:
    assert {name: kind.PLATFORM for name, kind in MARKETS.items()} == {name: name for name in MARKETS}
    assert len(MARKETS) == 5


def test_what_is_no_market_is_none() -> None:
    assert "autodl" not in MARKETS
    assert MARKETS.get("autodl") is None
    check_driver("", "b1")
    with pytest.raises(TenantFailure, match="not one that this version has"):
        check_driver("autodl", "b1")


def test_one_market_does_not_read_the_others() -> None:
    package = "ansible_collections.tenant.gpu.plugins.module_utils"
    code = (
        f"import sys; from {package}.markets import MARKETS; 'lambda' in MARKETS; MARKETS['vast']; print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    read = {name.removeprefix(f"{package}.").partition(".")[0] for name in done.stdout.split()}
    assert "vast" in read
    assert not read & {"runpod", "lambda_cloud", "paperspace", "aws_spot"}
