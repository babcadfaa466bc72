# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""RunPod's released SDK, unmodified, over HTTP: it still sends what ``tests/unit/runpod`` holds the marketplace to.

The SDK brings a web framework and more that nothing here needs, so it has an environment of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from official_clients import python_of

from gpu_tenant.marketplace.testing import running_marketplace

PROGRAM = Path(__file__).with_name("runpod_sdk_tenant.py")
RECORDED = Path(__file__).parents[1] / "unit" / "runpod" / "sdk_requests.json"
DEADLINE_S = 600
pytestmark = pytest.mark.integration


def test_the_unmodified_sdk_lives_on_the_marketplace(tmp_path: Path) -> None:
    python = python_of("runpod")
    with running_marketplace("none", speed=60.0) as market:
        place = {"name": "data", "size": 20, "dataCenterId": "EU-SE-1"}
        volume = market.request("POST", "/v1/networkvolumes", place)["id"]
        given = {"RUNPOD_API_BASE_URL": market.url, "RUNPOD_API_KEY": market.api_key, "VOLUME": volume}
        done = subprocess.run(
            [python, str(PROGRAM)],
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), **given},
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )
        left = market.request("GET", "/v1/pods")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["sent"] == json.loads(RECORDED.read_text())["queries"]
    assert [one["name"] for one in told["listed"]] == ["of the sdk"]
    assert (told["stopped"]["desiredStatus"], told["resumed"]["desiredStatus"]) == ("EXITED", "RUNNING")
    assert told["refused"].startswith("QueryError: gpuCount")
    assert told["another_key"].startswith("AuthenticationError")
    assert told["user"]["networkVolumes"][0]["id"] == volume
    assert [one for one in left if one["desiredStatus"] != "TERMINATED"] == []
