# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Run records are checked once at the door; environment files keep their secrets."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box import attempt, index, judge, process, records, run_record
from ansible_collections.tenant.gpu.plugins.module_utils.box.layout import Layout
from ansible_collections.tenant.gpu.plugins.module_utils.box.refusal import Refused
from hypothesis import given
from hypothesis import strategies as st

RUN: dict[str, Any] = {
    "project": "vision",
    "box": "b1",
    "generation": 1,
    "provider_id": "77",
    "run_id": "digits",
    "spec_sha256": "a" * 64,
    "code_sha256": "b" * 64,
    "python": "/usr/bin/python3",
    "command": ["python", "train.py"],
    "workdir": "/data/code",
    "cells": [{"id": "c1", "args": ["--lr", "0.1"], "seed": 3}],
}


def test_a_small_record_gets_every_default() -> None:
    run = run_record.check_run(RUN)
    assert run["retries"] == {"max": 1}
    assert run["durable"] == {"kind": "none", "path": ""}
    assert (run["grace_s"], run["artifacts"], run["env"], run["env_file"]) == (30.0, [], {}, "")
    assert run_record.check_run(run) == run


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("project", "a/b"),
        ("run_id", ".."),
        ("run_id", None),
        ("generation", 0),
        ("generation", True),
        ("generation", "1"),
        ("provider_id", ""),
        ("spec_sha256", "A" * 64),
        ("python", "python3"),
        ("workdir", "code"),
        ("command", []),
        ("command", "python train.py"),
        ("command", ["a\0b"]),
        ("cells", []),
        ("cells", [{"id": "c"}, {"id": "c"}]),
        ("cells", [{"id": "../c"}]),
        ("cells", [{"id": "run.json"}]),
        ("artifacts", [{"glob": "/etc/*"}]),
        ("artifacts", [{"glob": "x", "role": "boss"}]),
        ("artifacts", [{"glob": "x", "loader": "pickle"}]),
        ("artifacts", ["x"]),
        ("env", {"A=B": "x"}),
        ("env", {"A": None}),
        ("env", ["A=B"]),
        ("env_file", "secrets.env"),
        ("retries", {"max": -1}),
        ("retries", {"max": "many"}),
        ("durable", {"kind": "mount"}),
        ("durable", {"kind": "cloud"}),
        ("limits", {"min_free_bytes": -5}),
        ("grace_s", "soon"),
        ("grace_s", -1),
        ("preemption", {"grace_s": -1}),
        ("preemption", {"grace_s": "soon"}),
    ],
)
def test_a_wrong_value_is_named(key: str, value: object) -> None:
    with pytest.raises(Refused) as refused:
        run_record.check_run({**RUN, key: value})
    assert refused.value.code == 10


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from([*RUN, "env", "x"]), inner),
        max_leaves=12,
    )
)
def test_no_json_breaks_the_reader(value: object) -> None:
    with pytest.raises(Refused):
        run_record.check_run(value)


@given(
    st.sampled_from(sorted(RUN)), st.none() | st.integers() | st.text(max_size=5) | st.lists(st.integers(), max_size=2)
)
def test_no_single_value_breaks_the_reader(key: str, value: object) -> None:
    try:
        run = run_record.check_run({**RUN, key: value})
    except Refused:
        return
    assert run[key] == value


def test_the_config_hash_is_of_the_work_and_not_of_the_machine() -> None:
    run = run_record.check_run(RUN)
    known = run_record.config_sha256(run, run["cells"][0])
    for same in ({"python": "/opt/bin/python"}, {"workdir": "/mnt"}, {"env": {"HF_HOME": "/x"}}, {"generation": 4}):
        assert run_record.config_sha256({**run, **same}, run["cells"][0]) == known
    for other in ({"spec_sha256": "c" * 64}, {"run_id": "r2"}, {"code_sha256": "d" * 64}):
        assert run_record.config_sha256({**run, **other}, run["cells"][0]) != known
    for cell in ({"id": "c2"}, {"seed": 4}, {"args": []}):
        assert run_record.config_sha256(run, {**run["cells"][0], **cell}) != known


def test_the_command_of_a_cell() -> None:
    run = run_record.check_run(RUN)
    assert run_record.trainer_argv(run, run["cells"][0]) == ["/usr/bin/python3", "train.py", "--lr", "0.1"]
    run["command"] = ["torchrun", "train.py"]
    assert run_record.trainer_argv(run, run["cells"][0])[0] == "torchrun"


# --- environment files ------------------------------------------------------------------------------------------


def env_file(folder: Path, text: str, mode: int = 0o600) -> str:
    path = folder / "secrets.env"
    path.write_text(text)
    path.chmod(mode)
    return str(path)


def test_values_are_taken_as_they_stand(tmp_path: Path) -> None:
    path = env_file(tmp_path, "\n# c\nA=1\nB= x'y\"$HOME=z \nC=\n")
    assert run_record.read_env_file(path) == {"A": "1", "B": " x'y\"$HOME=z ", "C": ""}


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x0b", "\x0c", "\x1c", "\x85"])
def test_a_value_may_hold_what_python_takes_for_the_end_of_a_line(tmp_path: Path, mark: str) -> None:
    assert run_record.is_value(f"a{mark}b")
    assert run_record.read_env_file(env_file(tmp_path, f"A=a{mark}b\nB=1\n")) == {"A": f"a{mark}b", "B": "1"}


@pytest.mark.parametrize("value", ["", "a\nb", "a\rb", "a\0b", "a\n", 5, None])
def test_what_a_line_cannot_hold_is_no_value(value: object) -> None:
    assert not run_record.is_value(value)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
def test_a_file_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(Refused) as refused:
        run_record.read_env_file(env_file(tmp_path, "A=1\n", mode))
    assert refused.value.code == 11


def test_a_bad_line_is_told_by_number_only(tmp_path: Path) -> None:
    with pytest.raises(Refused) as refused:
        run_record.read_env_file(env_file(tmp_path, "A=1\nhunter2 is my secret\n"))
    assert "line 2" in refused.value.what
    assert "hunter2" not in refused.value.what


# --- the index --------------------------------------------------------------------------------------------------


def test_runs_keep_their_order_and_a_second_registration_is_the_same() -> None:
    run = run_record.check_run(RUN)
    first = index.merged(None, run, "t1")
    second = index.merged(first, {**run, "run_id": "later"}, "t2")
    assert index.run_ids(second) == ["digits", "later"]
    assert index.merged(second, run, "t3") == second
    changed = index.merged(second, {**run, "spec_sha256": "c" * 64}, "t4")
    assert index.run_ids(changed) == ["digits", "later"]
    assert changed["runs"][0] == {"run_id": "digits", "spec_sha256": "c" * 64, "cells": ["c1"], "added_at": "t4"}


@pytest.mark.parametrize(
    "changes", [{"project": "other"}, {"box": "b2"}, {"provider_id": "78"}, {"generation": 1, "provider_id": "9"}]
)
def test_a_run_of_another_box_is_refused(changes: dict[str, Any]) -> None:
    known = index.merged(None, run_record.check_run(RUN), "t1")
    with pytest.raises(Refused) as refused:
        index.merged(known, run_record.check_run({**RUN, **changes}), "t2")
    assert refused.value.code == 15


def test_the_same_hash_for_other_work_is_refused() -> None:
    run = run_record.check_run(RUN)
    other = run_record.check_run({**RUN, "cells": [{"id": "c9"}]})
    with pytest.raises(Refused) as refused:
        index.check_replacement(run, other, live=False)
    assert refused.value.code == 15
    # Where the interpreter lies is the machine's business.
    index.check_replacement(run, {**run, "python": "/opt/python"}, live=True)


# --- what lies on the box of a run whose record is replaced -----------------------------------------------------------


@pytest.mark.parametrize(("lives", "seen"), [(True, [1]), (False, [])])
def test_what_lives_is_waited_for_whatever_work_it_does(tmp_path: Path, lives: bool, seen: list[int]) -> None:
    layout, run = Layout(str(tmp_path)), run_record.check_run(RUN)
    paths = layout.attempt("digits", "c1", 1)
    other = dict(attempt.work(run, run["cells"][0], 1), config_sha256="9" * 64)
    os.makedirs(paths.folder)
    records.write_record(paths.claim, "claim", other)
    with subprocess.Popen(["/bin/sleep", "600"]) as sleeper:
        identity = process.identify(sleeper.pid)
        if not lives:
            sleeper.kill()
            sleeper.wait()
        status = dict(other, state="training", process=identity.as_dict())
        records.write_record(paths.status, "status", status)
        found = attempt.observe_cell(layout, run, run["cells"][0])
        sleeper.kill()
    assert [each.number for each in found.attempts] == seen
    assert (judge.judge_cell(found).next == judge.WATCH) is lives


def test_checkpoints_that_were_brought_stay_with_cells_that_stay(tmp_path: Path) -> None:
    layout, run = Layout(str(tmp_path)), run_record.check_run({**RUN, "work_sha256": "e" * 64})
    brought = Path(attempt.brought_dir(layout, run, "c1"))
    brought.mkdir(parents=True)
    (brought / "step-9000.pt").write_bytes(b"weights")
    more = {**run, "spec_sha256": "d" * 64, "cells": [*run["cells"], {"id": "c2", "args": [], "seed": None}]}
    assert index.only_appends(run, more)
    for _again in range(2):
        attempt.keep_brought(layout, run, more)
    (found,) = attempt.resume_dirs(layout, more, "c1", 1)
    assert os.listdir(found) == ["step-9000.pt"]
    assert attempt.resume_dirs(layout, run, "c1", 1) == [str(brought)]
    assert attempt.resume_dirs(layout, more, "c2", 1) == []
