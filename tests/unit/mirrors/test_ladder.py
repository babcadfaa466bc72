# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Where a file of a repository is tried from, where its token never goes, and aria2, by a program that speaks as it."""

from __future__ import annotations

import os
import sys
import textwrap
import time
from pathlib import Path

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box import aria2, download, hub, ladder
from ansible_collections.tenant.gpu.plugins.module_utils.box.http_get import CUT, MISSING, HttpProblem
from ansible_collections.tenant.gpu.plugins.module_utils.box.ladder import Endpoint
from hypothesis import given, settings
from hypothesis import strategies as st

COMMIT = "1" * 40
MEASURED = "plain=https://m.example proxied=https://huggingface.co plain=https://n.example"
ENVIRONMENT = {
    "HF_ENDPOINT": "https://n.example",
    "TENANT_HF_ENDPOINTS": MEASURED,
    "TENANT_MODELSCOPE": "https://ms.example",
}


def rungs(
    size: int = 10, headers: dict[str, str] | None = None, environment: dict[str, str] | None = None
) -> list[str]:
    known = ENVIRONMENT if environment is None else environment
    asked = ladder.endpoints(known, {}, bool(headers))
    repository = hub.Repository("org/r", "model", COMMIT, asked[0].url, headers or {})
    found = ladder.rungs(asked, repository, hub.HubFile("a b.bin", size, hub.SHA256, "0" * 64), known, lambda: True)
    assert all(not rung.secret_headers or "ms.example" not in rung.url for rung in found)
    return [f"{rung.engine} {rung.route} {rung.url}" for rung in found]


def test_the_ladder_goes_from_the_hub_to_modelscope_to_the_proxy() -> None:
    there = f"org/r/resolve/{COMMIT}/a%20b.bin"
    assert rungs() == [
        f"http plain https://n.example/{there}",
        f"http plain https://m.example/{there}",
        "http  https://ms.example/models/org/r/resolve/master/a%20b.bin",
        f"http proxied https://huggingface.co/{there}",
    ]


def test_aria2_is_for_what_is_very_large() -> None:
    assert [each.split()[0] for each in rungs(11 * 1000**3)] == ["http", "http", "http", "aria2", "http"]
    assert "aria2" not in " ".join(rungs(11 * 1000**3, {"Authorization": "Bearer t"}))


def test_a_token_goes_to_the_hub_and_to_the_mirror_that_was_named() -> None:
    found = rungs(headers={"Authorization": "Bearer t"})
    assert [each.split()[-1].split("/")[2] for each in found] == ["n.example", "huggingface.co"]


def test_without_a_measurement_nothing_is_new() -> None:
    assert rungs(environment={}) == [f"http  https://huggingface.co/org/r/resolve/{COMMIT}/a%20b.bin"]
    assert ladder.endpoints(ENVIRONMENT, {"HF_ENDPOINT": "https://run.example"}, False) == [
        Endpoint("https://n.example")
    ]


@settings(max_examples=60)
@given(st.text(alphabet="plain=proxied:/. xhtps", max_size=60), st.booleans())
def test_a_damaged_line_leaves_the_chosen_endpoint(line: str, secret: bool) -> None:
    found = ladder.endpoints({"HF_ENDPOINT": "https://n.example", "TENANT_HF_ENDPOINTS": line}, {}, secret)
    assert found
    assert all(each.url for each in found)


FAKE = """\
    #!{python}
    import os, sys, time
    said = dict(word.partition("=")[::2] for word in sys.argv[1:] if word.startswith("--"))
    out = os.path.join(said["--dir"], said["--out"])
    assert said["--continue"] == "true" and sys.argv[-2] == "--"
    if "/missing" in sys.argv[-1]:
        sys.exit(3)
    begun = os.path.getsize(out) if os.path.exists(out) else 0
    with open(out, "ab") as stream:
        stream.write(b"0123456789"[begun:])
        stream.flush()
    while "/stalls" in sys.argv[-1]:
        time.sleep(60)
"""


@pytest.fixture
def partial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    program = tmp_path / "bin" / "aria2c"
    program.parent.mkdir()
    program.write_text(textwrap.dedent(FAKE).format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return str(tmp_path / "partial")


def patience(stall_s: float = 300.0) -> download.Patience:
    return download.Patience(time.monotonic() + 600, stall_s=stall_s)


def test_aria2_goes_on_from_what_one_stream_brought(partial: str) -> None:
    Path(partial).write_bytes(b"01234")
    assert aria2.is_there()
    aria2.bring("https://h.example/f", "plain", partial, patience())
    assert Path(partial).read_bytes() == b"0123456789"
    assert not Path(f"{partial}.aria2part").exists()


def test_aria2_that_stalls_is_ended_and_what_it_has_is_kept_for_it(partial: str) -> None:
    with pytest.raises(HttpProblem, match="brought nothing") as caught:
        aria2.bring("https://h.example/stalls", "", partial, patience(stall_s=4.0))
    assert caught.value.kind == CUT
    assert not Path(partial).exists()
    assert Path(f"{partial}.aria2part").exists()


def test_aria2_says_what_is_not_there(partial: str) -> None:
    with pytest.raises(HttpProblem) as caught:
        aria2.bring("https://h.example/missing", "", partial, patience())
    assert caught.value.kind == MISSING


def test_a_stop_ends_aria2(partial: str) -> None:
    asked = patience()
    asked.stop.set()
    with pytest.raises(download.Stopped):
        aria2.bring("https://h.example/stalls", "", partial, asked)
