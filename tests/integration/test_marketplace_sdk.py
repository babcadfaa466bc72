# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The released SDK, unmodified, against boxes of the process engine: ``VastAI``, ``SyncClient``, ``AsyncClient``."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from marketplace_tools import Tenant
from test_marketplace_cli import VASTAI, OfficialClient

from gpu_tenant.marketplace.testing import running_marketplace

PROGRAM = Path(__file__).with_name("sdk_tenant.py")
DEADLINE_S = 600
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not VASTAI.exists(), reason="the official client is not installed beside this Python"),
]


@pytest.fixture(scope="module")
def vastai(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OfficialClient]:
    with running_marketplace("process", speed=60.0) as market:
        yield OfficialClient(Tenant(market, tmp_path_factory.mktemp("client")))


def told_by(vastai: OfficialClient, name: str) -> dict[str, Any]:
    """What a client of this name did, which must have ended well."""
    done = subprocess.run(
        [sys.executable, str(PROGRAM), name],
        env=vastai.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def are_masked(variables: dict[str, str], *names: str) -> bool:
    """Whether these variables and no others are there, of which nothing is shown."""
    return set(variables) == set(names) and set("".join(variables.values())) == {"*"}


def test_the_life_of_a_box(vastai: OfficialClient) -> None:
    told = told_by(vastai, "VastAI")
    assert told["variable"]["success"] is True
    assert are_masked(told["names"], "SDK_GIVEN")
    assert (told["running"], told["labelled"]["success"], told["label"]) == ("of the sdk", True, "renamed")
    assert told["ssh_url"].startswith("ssh://root@127.0.0.1:")
    assert told["listed"] == "given\n"
    assert "No such file" in told["missing"]
    assert told["sized"].split() == [str(len("by the account\n")), "sdk/given"]
    assert told["removed"] == ""
    assert "said by onstart" in told["log"]
    assert (told["stopped"], told["started"]) == ("stopped", "running")
    assert told["destroyed"]["success"] is True
    assert told["left"] == {}
    vastai.tenant.market.wait_for(told["number"], lambda row: row is None)


@pytest.mark.parametrize(("name", "label", "offers"), [("SyncClient", "sync", 3), ("AsyncClient", "async", 2)])
def test_the_typed_clients(vastai: OfficialClient, name: str, label: str, offers: int) -> None:
    told = told_by(vastai, name)
    assert (told["offers"], told["shown"]) == (offers, [label])
    vastai.tenant.market.wait_for(told["number"], lambda row: row is None)


def test_the_command_line_shows_and_sets_the_accounts_variables(vastai: OfficialClient) -> None:
    vastai("create", "env-var", "from_the_cli", "s3cret")
    assert are_masked(vastai.raw("show", "env-vars"), "FROM_THE_CLI")
    vastai("update", "env-var", "FROM_THE_CLI", "0ther")
    assert "s3cret" not in vastai("show", "env-vars", "-s")
    vastai("delete", "env-var", "FROM_THE_CLI")
    assert vastai.raw("show", "env-vars") == {}
    done = [row["api_route"] for row in vastai.raw("show", "audit-logs")]
    assert done[-3:] == ["POST /api/v0/secrets/", "PUT /api/v0/secrets/", "DELETE /api/v0/secrets/"]
