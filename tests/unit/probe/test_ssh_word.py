# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Law 8: whatever became a fact, the ssh on the controller gets no option from it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.tenant.gpu.plugins.filter.ssh_word import ssh_word

ROOT = Path(__file__).resolve().parents[3]
PROFILES = sorted((ROOT / "inventories/profiles/group_vars").glob("*.yml"))


@pytest.mark.parametrize(
    "name", ["ssh5.vast.ai", "192.0.2.1", "2001:db8::1", "::1", "box_1.g3", "p.b1.g2.4711", "not-located.invalid"]
)
def test_names_of_machines_and_keys_stay_as_they_are(name: str) -> None:
    assert ssh_word(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "-oProxyCommand=touch x", "-G", "x -o ProxyCommand=touch${IFS}x", "x\ty", "x\n", "", "x'y", 'x"y', "%h", "a%d",
        "$(id)", "`id`", "a;b", "a/b", "user@host", "b\u200bx", "x" * 256, None, 3, ["x"], {"a": 1},
    ],
)  # fmt: skip
def test_what_ssh_could_take_for_more_is_refused(name: Any) -> None:
    with pytest.raises(AnsibleFilterError, match="Nothing was connected to") as caught:
        ssh_word(name)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_no_profile_lets_a_fact_reach_ssh_unchecked(path: Path) -> None:
    for line in path.read_text().splitlines():
        for template in re.findall(r"\{\{(.*?)\}\}", line):
            if "box_endpoint" in template and not re.search(r"\['(port|user)'\]", template):
                assert template.strip().endswith("| tenant.gpu.ssh_word"), line
