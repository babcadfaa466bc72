# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What a process that calls out is told: the box's file, the platform's hook, and what people set."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box import calling
from ansible_collections.tenant.gpu.plugins.module_utils.box.refusal import Refused

TURBO = """\
export http_proxy=http://10.0.0.1:80 https_proxy=http://10.0.0.1:80
export no_proxy=127.0.0.1,localhost,modelscope.com REQUESTS_CA_BUNDLE=/etc/turbo.pem
export OTHER=1
echo 'it is on'
"""


def write(root: Path, **variables: str) -> str:
    path = root / "mirrors.env"
    path.write_text("# ours\n" + "".join(f"{name}={text}\n" for name, text in variables.items()))
    path.chmod(0o600)
    return str(root)


@pytest.fixture
def turbo(tmp_path: Path) -> str:
    path = tmp_path / "network_turbo"
    path.write_text(TURBO)
    return str(path)


def test_nothing_is_told_where_nothing_was_chosen(tmp_path: Path) -> None:
    assert calling.variables(str(tmp_path), {"PATH": "/bin"}, {}) == {}
    assert calling.variables(str(tmp_path), {"PATH": "/bin"}, {}, over={"A": "b"}) == {"A": "b"}


def test_a_trainer_gets_the_file_and_the_hook_and_its_own_word_wins(tmp_path: Path, turbo: str) -> None:
    root = write(tmp_path, HF_ENDPOINT="https://m.example", TENANT_PROXY_HOOK=turbo, no_proxy=".modelscope.cn")
    found = calling.variables(root, {"no_proxy": "own.example"}, {}, over={"HF_ENDPOINT": "https://run.example"})
    assert found["HF_ENDPOINT"] == "https://run.example"
    assert found["https_proxy"] == "http://10.0.0.1:80"
    assert found["REQUESTS_CA_BUNDLE"] == "/etc/turbo.pem"
    assert "OTHER" not in found
    assert calling.HOOK not in found
    assert found["no_proxy"] == found["NO_PROXY"]
    assert {"own.example", "modelscope.com", ".modelscope.cn", "127.0.0.1"} <= set(found["no_proxy"].split(","))
    past = calling.variables(root, {}, {}, over={"https_proxy": ""})
    assert past["https_proxy"] == ""


def test_a_hook_that_is_gone_is_no_silence(tmp_path: Path) -> None:
    root = write(tmp_path, TENANT_PROXY_HOOK=str(tmp_path / "gone"))
    with pytest.raises(Refused, match="proxy hook"):
        calling.variables(root, {}, {})


def test_a_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    root = write(tmp_path, A="b")
    (tmp_path / "mirrors.env").chmod(0o644)
    with pytest.raises(Refused, match="read by others"):
        calling.variables(root, {}, {})


def test_without_a_proxy_no_proxy_is_left_as_it_is(tmp_path: Path) -> None:
    assert calling.variables(str(tmp_path), {"no_proxy": "x"}, {"A": "b"}) == {"A": "b"}


def test_failures_are_kept_for_the_next_measurement_and_only_where_there_is_one(tmp_path: Path) -> None:
    calling.note_failure(str(tmp_path), "https://m.example", "it stalled")
    assert list(tmp_path.iterdir()) == []
    Path(calling.record_path(str(tmp_path))).write_text("{}")
    for _time in range(2):
        calling.note_failure(str(tmp_path), "https://m.example", "it stalled")
    calling.note_failure(str(tmp_path), "https://n.example", "it stalled")
    assert (
        '"urls": [\n  "https://m.example",\n  "https://n.example"\n ]'
        in Path(calling.failures_path(str(tmp_path))).read_text()
    )
