# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The official client's own live tests, unmodified, against the marketplace: all 19 pass, none is skipped."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from marketplace_tools import Tenant
from test_marketplace_cli import VASTAI, OfficialClient

from gpu_tenant.marketplace.testing import running_marketplace

LIVE = Path(__file__).with_name("vast_cli_live")
PAGE = Path(__file__).parents[2] / "docs" / "marketplace.md"
DEADLINE_S = 600
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not VASTAI.exists(), reason="the official client is not installed beside this Python"),
]


def outcomes(report: Path) -> dict[str, str]:
    """What became of each test of a report."""
    cases = ElementTree.parse(report).iter("testcase")  # noqa: S314 - pytest wrote it a moment ago
    return {str(case.get("name")): next((part.tag for part in case), "passed") for case in cases}


def test_all_pass_and_the_page_names_them(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    with running_marketplace("none") as market:
        client = OfficialClient(Tenant(market, tmp_path))
        words = ["-m", "live", "-c", str(LIVE / "pytest.ini"), "--rootdir", str(LIVE), "--confcutdir", str(LIVE)]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", *words, f"--junit-xml={report}", str(LIVE)],
            env={**client.environment, "GPU_TENANT_VAST_CLI_LIVE": "1"},
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
        assert market.request("GET", "/api/v0/secrets/")["secrets"] == {}, "a test left a variable behind"
        assert market.request("GET", "/api/v0/ssh/") == [], "a test left a key behind"
    found = outcomes(report)
    assert found == dict.fromkeys(found, "passed")
    assert len(found) == 19
    page = PAGE.read_text(encoding="utf-8")
    assert [name for name in found if f"`{name}`" not in page] == []
