# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The files of pip, conda, apt and Docker: what was there stays, and everything is given back."""

from __future__ import annotations

import configparser
import json
import os
import tempfile
from pathlib import Path

import pytest
import yaml
from ansible_collections.tenant.gpu.plugins.module_utils.mirrors import files, ini_key, store
from ansible_collections.tenant.gpu.plugins.module_utils.mirrors.choice import Choice
from hypothesis import given, settings
from hypothesis import strategies as st

MIRROR = Choice("m", "https://m.example/simple", "plain")
OTHER = Choice("n", "https://n.example/simple", "plain")
LINES = ["[global]", "[install]", "index-url = https://own.example", "index_url: x", "timeout = 9", "  more", "# c", ""]
INI = st.lists(st.sampled_from(LINES), max_size=7, unique=True).map("\n".join)
SOURCES = """\
# deb http://archive.ubuntu.com/ubuntu jammy main
deb http://archive.ubuntu.com/ubuntu jammy main
deb [arch=amd64] http://archive.ubuntu.com/ubuntu/ jammy-updates main
deb http://archive.ubuntu.com/ubuntu-ports jammy main
"""


def wanted(kind: str, choice: Choice = MIRROR, **more: str) -> store.Wanted:
    return store.Wanted(kind, {"choice": choice.as_dict(), **more})


@settings(max_examples=150)
@given(text=INI, value=st.sampled_from(["https://m.example", "x"]))
def test_a_key_is_set_and_nothing_else_of_the_file_changes(text: str, value: str) -> None:
    before = ini_key.get(text, "global", "index-url")
    after = ini_key.put(text, "global", "index-url", value)
    assert ini_key.get(after, "global", "index-url") == value
    ours = [*(before or "").splitlines(), f"index-url = {value}", "[global]", ""]
    old, new = text.splitlines(), after.splitlines()
    assert [line for line in new if line not in ours] == [
        line for line in old if line not in ours and not (before and line.endswith(before.splitlines()[0]))
    ]
    again = ini_key.put(after, "global", "index-url", before)
    assert ini_key.get(again, "global", "index-url") == before


def test_pip_itself_reads_what_was_written() -> None:
    for before in ("", "[global]\ntimeout = 5", "[install]\nuser = no\n", "[global]\nindex_url = https://a\n"):
        parser = configparser.RawConfigParser()
        parser.read_string(files.Pip(MIRROR).done(before))
        found = {key.replace("_", "-"): text for key, text in parser["global"].items()}
        assert found["index-url"] == MIRROR.url


def test_the_nightly_channel_is_never_mirrored() -> None:
    told = yaml.safe_load(files.Conda(Choice("t", "https://t.example/anaconda", "plain")).done(""))
    assert set(told) == {"default_channels", "custom_channels"}
    assert not [name for name in told["custom_channels"] if "nightly" in name]
    assert told["default_channels"][0] == "https://t.example/anaconda/pkgs/main"
    # An alias would send every channel to the mirror, nightly ones too.
    assert "channel_alias" not in told


def test_the_archive_is_replaced_in_lines_that_count_and_its_neighbour_is_not() -> None:
    apt = files.Apt(Choice("m", "http://m.example/ubuntu", "plain"), "http://archive.ubuntu.com/ubuntu")
    after = apt.done(SOURCES)
    assert after.splitlines()[0] == SOURCES.splitlines()[0]
    assert after.count("http://m.example/ubuntu") == 2
    assert "http://archive.ubuntu.com/ubuntu-ports" in after
    assert apt.undone(after, "") == SOURCES


def test_the_daemons_other_mirrors_and_settings_stay() -> None:
    docker = files.Docker(MIRROR)
    before = json.dumps({"log-level": "warn", "registry-mirrors": ["https://own.example"]})
    after = json.loads(docker.done(before))
    assert after == {"log-level": "warn", "registry-mirrors": [MIRROR.url, "https://own.example"]}
    assert json.loads(docker.undone(json.dumps(after), before)) == json.loads(before)
    assert docker.undone(docker.done(""), "") == ""
    with pytest.raises(ValueError, match="JSON"):
        docker.done("[]")


def settle(plan: dict[str, store.Wanted], written: dict[str, dict[str, object]]) -> dict[str, dict[str, object]]:
    found = store.plan(plan, written)
    store.carry_out(found, written)
    return dict(found.written)


@settings(max_examples=60)
@given(
    before=st.none() | INI.map(str.encode) | st.binary(max_size=40),
    steps=st.lists(st.sampled_from([MIRROR, OTHER, None]), min_size=1, max_size=3),
)
def test_what_was_there_comes_back_byte_by_byte(before: bytes | None, steps: list[Choice | None]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "deep", "er", "pip.conf")
        if before is not None:
            path.parent.mkdir(parents=True)
            path.write_bytes(before)
            path.chmod(0o640)
        written: dict[str, dict[str, object]] = {}
        for step in steps:
            written = settle({str(path): wanted("pip", step)} if step else {}, written)
            if step:
                assert ini_key.get(store.read(str(path)) or "", "global", "index-url") == step.url
                assert settle({str(path): wanted("pip", step)}, written) == written
        settle({}, written)
        if before is None:
            assert os.listdir(folder) == []
        else:
            assert path.read_bytes() == before
            assert path.stat().st_mode & 0o777 == 0o640


def test_what_somebody_added_since_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "pip.conf"
    path.write_text("[global]\nindex-url = https://own.example\n")
    written = settle({str(path): wanted("pip")}, {})
    path.write_text(path.read_text() + "timeout = 7\n")
    written = settle({str(path): wanted("pip", OTHER)}, written)
    assert path.read_text() == "[global]\nindex-url = https://n.example/simple\ntimeout = 7\n"
    settle({}, written)
    assert path.read_text() == "[global]\nindex-url = https://own.example\ntimeout = 7\n"


def test_a_run_that_was_cut_off_after_its_record_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "pip.conf"
    path.write_text("[global]\ntimeout = 7\n")
    planned = store.plan({str(path): wanted("pip")}, {})
    settle({}, dict(planned.written))
    assert path.read_text() == "[global]\ntimeout = 7\n"


def test_a_file_that_somebody_removed_stays_removed_only_until_it_is_wanted(tmp_path: Path) -> None:
    path = tmp_path / "conda.yml"
    written = settle({str(path): wanted("conda")}, {})
    path.unlink()
    assert settle({str(path): wanted("conda")}, written) == written
    assert path.exists()
    path.unlink()
    settle({}, written)
    assert not path.exists()
