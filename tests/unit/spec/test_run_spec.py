# SPDX-License-Identifier: MIT
"""The run spec: what is read, what is refused (with its line), and what the hash covers."""

from __future__ import annotations

import os
import textwrap
from pathlib import Path

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box.refusal import Refused
from ansible_collections.tenant.gpu.plugins.module_utils.box.run_record import cell_of, check_run, config_sha256
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.run_spec import load_run_spec, resolve_argv, run_record

GOOD = """\
id: mnist
command: [python, train.py, --epochs, 3]
cells:
  - {id: seed-0, args: [--seed, 0], seed: 0}
  - {id: seed-1, args: [--seed, 1], seed: 1}
artifacts:
  - {glob: model.pt, role: checkpoint, loader: torch}
"""


@pytest.fixture
def write(tmp_path):
    (tmp_path / "train.py").write_text("print('train')\n")

    def write(text: str) -> str:
        path = tmp_path / "run.yml"
        path.write_text(textwrap.dedent(text))
        return str(path)

    return write


def test_defaults_are_filled_in(write) -> None:
    spec = load_run_spec(write(GOOD))
    assert spec["command"] == ["python", "train.py", "--epochs", "3"]
    assert [cell["id"] for cell in spec["cells"]] == ["seed-0", "seed-1"]
    assert spec["tracker"] == {"name": "none", "mode": "online", "project": "", "entity": ""}
    assert [entry["path"] for entry in spec["code_files"]] == ["run.yml", "train.py"]


def test_the_hash_covers_spec_and_code(write, tmp_path) -> None:
    path = write(GOOD)
    first = load_run_spec(path)["spec_sha256"]
    assert load_run_spec(path)["spec_sha256"] == first
    (tmp_path / "train.py").write_text("print('other')\n")
    changed_code = load_run_spec(path)["spec_sha256"]
    assert changed_code != first
    assert load_run_spec(write(GOOD.replace("3]", "4]")))["spec_sha256"] not in (first, changed_code)


def test_a_cell_more_is_another_spec_and_no_other_work_for_the_cells_before_it(write) -> None:
    text = GOOD + "code: {exclude: [run.yml]}\n"
    first, more = (
        load_run_spec(write(text)),
        load_run_spec(write(text.replace("cells:\n", "cells:\n  - {id: third}\n"))),
    )
    assert len(more["cells"]) == len(first["cells"]) + 1
    assert (more["work_sha256"], more["code_sha256"]) == (first["work_sha256"], first["code_sha256"])
    assert more["spec_sha256"] != first["spec_sha256"]
    changed = load_run_spec(write(text.replace("3]", "4]")))
    assert changed["work_sha256"] != first["work_sha256"]
    box = {"name": "b1", "tenant_root": "/w", "python": "/opt/py"}
    of_first, of_more = (
        check_run(run_record(spec, {"generation": 1, "provider_id": "7"}, "demo", box)) for spec in (first, more)
    )
    for cell in of_first["cells"]:
        known = config_sha256(of_more, cell_of(of_more, cell["id"]))
        assert known == config_sha256(of_first, cell), "what is done stays done"


def test_boxes_that_work_together_and_sharded_artifacts_are_read(write) -> None:
    assert load_run_spec(write(GOOD))["parts"] == []
    spec = load_run_spec(write(GOOD.replace("loader: torch", "loader: dcp") + "parts: [node-a, node-b]\n"))
    assert spec["parts"] == ["node-a", "node-b"]
    assert spec["artifacts"][0]["loader"] == "dcp"


def test_caches_are_not_code(write, tmp_path) -> None:
    path = write(GOOD)
    first = load_run_spec(path)["code_sha256"]
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "train.cpython-311.pyc").write_bytes(b"x")
    assert load_run_spec(path)["code_sha256"] == first


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("id: [\n", "line 2"),
        ("- 1\n", "mapping"),
        ("command: [python]\nartifacts: [{glob: a}]\n", "'id' is missing"),
        (GOOD + "comand: [x]\n", "line 8: unknown key 'comand'"),
        (GOOD.replace("id: mnist", "id: ../mnist"), "line 1"),
        (GOOD.replace("seed-1, args", "seed-0, args"), "line 5: two cells are called 'seed-0'"),
        (GOOD.replace("glob: model.pt", "glob: ../model.pt"), "line 7"),
        (GOOD.replace("loader: torch", "loader: pickle"), "line 7"),
        (GOOD.replace("[python, train.py, --epochs, 3]", "python train.py"), "line 2: 'command' must be a list"),
        (GOOD.replace("[python, train.py, --epochs, 3]", "[]"), "line 2: 'command' is empty"),
        (GOOD + "code: {path: nowhere}\n", "line 8"),
        (GOOD + "inputs: [{uri: 'ftp://x', sha256: a, dest: d}]\n", "line 8"),
        (GOOD + "tracker: excel\n", "line 8: tracker"),
        (GOOD + "parts: [node-a, ../b]\n", "line 8: box '../b'"),
        (GOOD + "parts: [node-a, 7]\n", "line 8: box 7"),
        (GOOD + "progress: tensorboard\n", "line 8: 'progress' must be a dict"),
        (
            GOOD + "progress:\n  source: regex\n  pattern: 'step (?P<step>'\n",
            "line 10: progress.pattern cannot be used",
        ),
        (GOOD + "progress:\n  source: tensorboard\n  tags: x\n", "line 10: progress with source tensorboard has"),
        (GOOD + "progress: {source: stdout}\n", "line 8: progress.source 'stdout' is none of"),
        (GOOD + "parts: [node-a, node-b, node-a]\n", "line 8: 'node-a' is listed twice"),
    ],
)
def test_bad_specs_name_file_line_and_fix(write, text: str, says: str) -> None:
    with pytest.raises(TenantFailure, match=r"run\.yml") as caught:
        load_run_spec(write(text))
    assert says in str(caught.value)
    assert caught.value.kind == "config"
    assert "nothing was rented" in str(caught.value)


def test_a_missing_file_is_one_clear_error(tmp_path) -> None:
    with pytest.raises(TenantFailure, match="cannot read the run spec"):
        load_run_spec(str(tmp_path / "none.yml"))


def bomb(last: str = "[*l7, *l7]") -> str:
    """Each level holds the one before nine times."""
    lines = ["l0: &l0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 8)]
    return "\n".join([*lines, f"last: {last}", ""])


MERGES = "l0: &l0 {x: 1}\n" + "".join(f"l{n}: &l{n} {{<<: [{', '.join([f'*l{n - 1}'] * 9)}]}}\n" for n in range(1, 8))


@pytest.mark.parametrize(
    "text",
    [
        bomb(),
        bomb("{a: 1}"),
        MERGES,
        "id: &me [*me]\n",
        "id: &me {again: *me}\n",
        f"id: &long {'x' * 100_000}\nenv: [{', '.join(['*long'] * 1000)}]\n",
    ],
)
def test_aliases_that_unfold_without_end_are_refused(write, text: str) -> None:
    with pytest.raises(TenantFailure, match="its aliases repeat more than") as caught:
        load_run_spec(write(text))
    assert caught.value.kind == "config"


@pytest.mark.parametrize("value", ["2026-13-45", "2026-02-30", "0x_", "[" * 5000])
def test_what_the_parser_itself_breaks_at_is_refused_in_words(write, value: str) -> None:
    with pytest.raises(TenantFailure, match=r"run spec \S+: .*quotes") as caught:
        load_run_spec(write(f"{GOOD}\nnote: {value}\n"))
    assert caught.value.kind == "config"


def test_an_alias_is_as_good_as_what_it_stands_for(write) -> None:
    text = GOOD.replace("args: [--seed, 0]", "args: &args [--x, '1']").replace("args: [--seed, 1]", "args: *args")
    assert [cell["args"] for cell in load_run_spec(write(text))["cells"]] == [["--x", "1"]] * 2


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/null"])
def test_a_run_spec_is_a_file(path: str) -> None:
    with pytest.raises(TenantFailure, match=f"cannot read the run spec {path}: .*no regular file") as caught:
        load_run_spec(path)
    assert (caught.value.kind, caught.value.safe) == ("config", "nothing was rented")


def test_a_pipe_that_nobody_writes_into_is_not_waited_for(tmp_path) -> None:
    os.mkfifo(tmp_path / "run.yml")
    with pytest.raises(TenantFailure, match="no regular file"):
        load_run_spec(str(tmp_path / "run.yml"))


def test_a_file_that_is_far_too_long_is_no_run_spec(tmp_path) -> None:
    with open(tmp_path / "run.yml", "wb") as stream:
        stream.truncate(1 << 24)
    with pytest.raises(TenantFailure, match="longer than 4 MiB"):
        load_run_spec(str(tmp_path / "run.yml"))


def test_a_symlink_in_the_code_is_refused(write, tmp_path) -> None:
    (tmp_path / "secret").symlink_to("/etc/passwd")
    with pytest.raises(TenantFailure, match="symlink"):
        load_run_spec(write(GOOD))


@pytest.mark.parametrize(
    ("name", "text", "mode", "line"),
    [
        ("run.sh", "#!/bin/sh\necho a\r\n", 0o644, 2),
        ("tools/setup.bash", "set -e\r\n", 0o644, 1),
        ("start", "#!/usr/bin/env python3\r\nprint()\r\n", 0o755, 1),
    ],
)
def test_a_script_with_line_ends_of_another_system_is_refused_by_name(write, tmp_path, name, text, mode, line) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text.encode())
    path.chmod(mode)
    with pytest.raises(TenantFailure, match=rf"{name} line {line} ends with CR LF.*eol=lf") as failure:
        load_run_spec(write(GOOD))
    assert "nothing was rented" in failure.value.safe


@pytest.mark.parametrize(
    ("name", "text", "mode"),
    [
        ("run.sh", "#!/bin/sh\nprintf 'a\\r\\n'\n", 0o755),
        ("train.py", "#!/usr/bin/env python3\nprint('a')\r\n", 0o755),  # Python reads either
        ("helper.py", "#!/usr/bin/env python3\r\n", 0o644),  # nothing starts it by its first line
        ("rows.csv", "a,b\r\n", 0o644),
        ("program", "\x7fELF\r\n", 0o755),
        ("empty", "", 0o755),
    ],
)
def test_line_ends_that_break_nothing_are_left_alone(write, tmp_path, name, text, mode) -> None:
    path = tmp_path / name
    spec = write(GOOD)
    path.write_bytes(text.encode())
    path.chmod(mode)
    assert name in [file["path"] for file in load_run_spec(spec)["code_files"]]


def test_only_a_leading_python_is_the_interpreter() -> None:
    argv = resolve_argv(["python", "x.py", "python", "{model}"], "/opt/py", model="/m.pt")
    assert argv == ["/opt/py", "x.py", "python", "/m.pt"]


def test_the_run_record_names_this_box_and_this_code(write) -> None:
    spec = load_run_spec(write(GOOD))
    endpoint = {"generation": 2, "provider_id": "77"}
    box = {
        "name": "b",
        "tenant_root": "/w/gpu-tenant/",
        "python": "/opt/py",
        "python_path": "/w/lib",
        "env": {"A": "1"},
    }
    record = run_record(spec, endpoint, "demo", box)
    assert record["workdir"] == f"/w/gpu-tenant/code/{spec['code_sha256']}"
    assert (record["generation"], record["provider_id"], record["box"]) == (2, "77", "b")
    assert record["command"][0] == "/opt/py"
    assert record["env"] == {"A": "1", "PYTHONPATH": "/w/lib"}
    assert record["gpu"]["required"] is False
    wanted = {"required": True, "count": 2}
    assert run_record(spec, endpoint, "demo", dict(box, gpu=wanted))["gpu"] == wanted


def test_how_progress_is_read_may_be_corrected_without_becoming_another_run(write) -> None:
    text = GOOD + "code: {exclude: [run.yml]}\n"
    plain = load_run_spec(write(text))
    assert plain["progress"] == {"source": "metrics", "total_steps": None}
    with_pattern = load_run_spec(write(text + "progress: {source: regex, pattern: 'it (?P<step>[0-9]+)'}\n"))
    box = {"name": "b", "tenant_root": "/w", "python": "/opt/py"}
    record = run_record(with_pattern, {"generation": 1, "provider_id": "7"}, "demo", box)
    assert record["progress"] == {"source": "regex", "pattern": "it (?P<step>[0-9]+)", "total_steps": None}
    assert with_pattern["spec_sha256"] == plain["spec_sha256"]
    assert load_run_spec(write(text + "grace_s: 31\n"))["spec_sha256"] != plain["spec_sha256"]


def test_a_budget_that_is_raised_makes_no_other_run(write) -> None:
    plain = GOOD + "code: {exclude: [run.yml]}\n"
    others = ("budget: {usd: 5}\n", "budget: {usd: 9, warn_at: 0.5}\n", "candidates: [b2]\n", "deadline_s: 7200\n")
    found = [load_run_spec(write(plain + more)) for more in ("", *others)]
    assert len({(spec["spec_sha256"], spec["work_sha256"]) for spec in found}) == 1


def test_the_patience_with_a_silent_trainer_reaches_the_box_and_is_no_part_of_the_hash(write) -> None:
    first = load_run_spec(write(GOOD))
    patient = load_run_spec(write(GOOD + "stall_s: 7200\n"))
    assert (first["stall_s"], patient["stall_s"]) == (1800.0, 7200)
    assert patient["spec_sha256"] != first["spec_sha256"], "run.yml itself is part of the code tree here"
    outside = GOOD + "code: {exclude: [run.yml]}\n"
    same = {load_run_spec(write(outside + more))["spec_sha256"] for more in ("", "stall_s: 7200\n", "stall_s: 0\n")}
    assert len(same) == 1
    box = {"name": "b1", "tenant_root": "/data/gpu-tenant", "python": "/usr/bin/python3"}
    record = run_record(patient, {"generation": 1, "provider_id": "7"}, "demo", box)
    assert check_run(record)["stall_s"] == 7200.0
    assert check_run({key: value for key, value in record.items() if key != "stall_s"})["stall_s"] == 1800.0


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("env: {'A B': x}", "'A B', which is no name of an environment variable"),
        ("env: {'A;touch pwned;B': x}", "which is no name of an environment variable"),
        ("env: {1A: x}", "which is no name of an environment variable"),
        ("env: {5: x}", "env has 5, which is no name"),
        ("env: {A: [x]}", "env A must be a plain value, not list"),
        ("env: {A: }", "env A must be a plain value, not NoneType"),
        (r'env: {A: "x\0y"}', "env A holds what no process can be given"),
        (r'evaluate: ["\ud800"]', "evaluate holds what no process can be given"),
        (r'smoke: [python, "\0"]', "smoke holds what no process can be given"),
        ("deadline_s: -1", "'deadline_s' must be a number of seconds above 0 to 30 days, not -1"),
        ("deadline_s: 0", "'deadline_s' must be a number of seconds above 0"),
        ("deadline_s: .nan", "'deadline_s' must be"),
        ("deadline_s: 2592001", "'deadline_s' must be"),
        ("grace_s: -1", "'grace_s' must be a number of seconds from 0 to 30 days, not -1"),
        ("retries: {max: many}", "retries.max is 'many': a whole number from 0 to 100 is wanted"),
        ("retries: {max: -1}", "retries.max is -1"),
        ("retries: {max: 101}", "retries.max is 101"),
        ("retries: {max: true}", "retries.max is True"),
        ("retries: {most: 1}", "retries has an unknown key 'most'; known keys are max"),
        ("resources: {gpu_count: true}", "resources.gpu_count is True: a whole number from 0 to 64 is wanted"),
        ("resources: {gpu_count: 65}", "resources.gpu_count is 65"),
        ("resources: {disk_gb: big}", "resources.disk_gb is 'big': a plain number of gigabytes above 0 is wanted"),
        ("resources: {disk_gb: 0}", "resources.disk_gb is 0"),
        ("resources: {disk_gb: }", "resources.disk_gb is None"),
        ("resources: {gpu_count: }", "resources.gpu_count is None"),
        ("resources: {disk_gb: .inf}", "resources.disk_gb is inf"),
        ("budget: {usd: plenty}", "budget.usd is 'plenty': a plain number of dollars above 0 is wanted"),
        ("budget: {usd: -1}", "budget.usd is -1"),
        ("budget: {usd: true}", "budget.usd is True"),
        ("candidates: [nope, 3]", "candidates[1] is 3: the name of a box or a group of the inventory is wanted"),
        ("candidates: [on]", "candidates[0] is True"),
        ("candidates: [{vast: 1}]", "candidates[0] is {'vast': 1}"),
        ("candidates: ['']", "candidates[0] is ''"),
        ("candidates: [vast, a, vast]", "'vast' is listed twice among the candidates"),
        ("budget: {eur: 5}", "budget has an unknown key 'eur'; known keys are usd, warn_at, rung_usd"),
        ("budget: {rung_usd: 0}", "budget.rung_usd is 0: a plain number of dollars above 0 is wanted"),
        ("budget: {usd: 2, rung_usd: }", "budget.rung_usd is None"),
        ("budget: {usd: 2, warn_at: most}", "budget.warn_at is 'most': a share of budget.usd is wanted"),
        ("budget: {usd: 2, warn_at: 0}", "budget.warn_at is 0: a share"),
        ("budget: {usd: 2, warn_at: 80}", "budget.warn_at is 80: a share"),
        ("budget: {usd: 2, warn_at: }", "budget.warn_at is None"),
        ("budget: {warn_at: 0.5}", "budget.warn_at is a share of budget.usd, which is not set"),
    ],
)
def test_a_value_that_cannot_be_used_is_refused_by_its_name_and_line(write, line: str, says: str) -> None:
    with pytest.raises(TenantFailure) as caught:
        load_run_spec(write(GOOD + line + "\n"))
    assert "line 8: " in caught.value.what
    assert says in caught.value.what
    assert (caught.value.kind, bool(caught.value.safe), bool(caught.value.fix)) == ("config", True, True)


@pytest.mark.parametrize(
    "line",
    [
        "env: {A: 1, B_2: true, _c: 'x y'}",
        "deadline_s: 2592000",
        "grace_s: 0",
        "retries: {max: 0}",
        "retries: {}",
        "resources: {gpu_count: 0, disk_gb: 0.5, gpu_name: RTX 4090}",
        "candidates: []",
        "candidates: [vast-a, vast]",
        "budget: {usd: 2.5}",
        "budget: {usd: }",
        "budget: {usd: 2, warn_at: 0.5}",
        "budget: {usd: 2, warn_at: 1}",
        "budget: {usd: , rung_usd: 0.5}",
        "budget: {usd: 2, rung_usd: 3}",
    ],
)
def test_a_value_that_can_be_used_is_kept(write, line: str) -> None:
    load_run_spec(write(GOOD + line + "\n"))


@pytest.mark.parametrize("key", ["stall_s", "cell_timeout_s"])
@pytest.mark.parametrize("value", ["-1", "2592001", ".nan", ".inf", "true", "soon"])
def test_a_patience_that_is_no_time_is_refused_with_its_line(write, key: str, value: str) -> None:
    with pytest.raises(TenantFailure, match=rf"line 8: '{key}' must be"):
        load_run_spec(write(GOOD + f"{key}: {value}\n"))


def test_a_limit_that_each_of_several_boxes_would_keep_is_refused_with_its_line(write) -> None:
    """The first to end its part has failed, and the others would wait for it, and bill on."""
    one_cell = GOOD.replace("  - {id: seed-1, args: [--seed, 1], seed: 1}\n", "")
    limited, together = one_cell + "cell_timeout_s: 3600\n", "nodes: {backend: gloo}\n"
    with pytest.raises(TenantFailure, match=r"line 7: 'cell_timeout_s' is kept by each box alone.*budget\.usd"):
        load_run_spec(write(limited + "parts: [a, b]\n" + together))
    load_run_spec(write(one_cell + "cell_timeout_s: 0\nparts: [a, b]\n" + together))
    load_run_spec(write(limited + "parts: [a, b]\n"))
    load_run_spec(write(limited + "nodes: {count: 2}\n"))  # of one Slurm job, which one supervisor looks after


def test_what_becomes_of_a_cell_and_of_those_after_it_reaches_the_box_and_is_no_part_of_the_hash(write) -> None:
    plain = GOOD + "code: {exclude: [run.yml]}\n"
    strict = load_run_spec(write(plain + "cell_timeout_s: 3600\non_fail: stop\n"))
    assert strict["spec_sha256"] == load_run_spec(write(plain))["spec_sha256"]
    box = {"name": "b1", "tenant_root": "/data/gpu-tenant", "python": "/usr/bin/python3"}
    record = run_record(strict, {"generation": 1, "provider_id": "7"}, "demo", box)
    found = check_run(record)
    assert (found["cell_timeout_s"], found["on_fail"]) == (3600.0, "stop")
    for key in ("cell_timeout_s", "on_fail"):
        del record[key]
    found = check_run(record)
    assert (found["cell_timeout_s"], found["on_fail"]) == (0.0, "continue")
    with pytest.raises(Refused, match="on_fail"):
        check_run({**record, "on_fail": "ignore"})


@pytest.mark.parametrize("value", ["ignore", "true", "[stop]", "''"])
def test_a_word_for_failures_that_nobody_knows_is_refused_with_its_line(write, value: str) -> None:
    with pytest.raises(TenantFailure, match=r"line 8: 'on_fail' (is|must be)"):
        load_run_spec(write(GOOD + f"on_fail: {value}\n"))


def test_what_is_pruned_is_chosen_by_a_known_word(write) -> None:
    assert load_run_spec(write(GOOD + "checkpoint: {prune: older}\n"))["checkpoint"] == {"prune": "older"}
    with pytest.raises(TenantFailure, match=r"line 9: .*one of none, spare, older, not 'all'"):
        load_run_spec(write(GOOD + "checkpoint:\n  prune: all\n"))


@pytest.mark.parametrize(
    "folder", [".tenant/runner", ".tenant/rehearsals/1/boxes", ".ansible/tmp", ".git", "pkg/__pycache__"]
)
def test_what_the_tools_leave_in_the_folder_of_the_job_is_no_code(write, folder: str) -> None:
    """The runner's own folder is made where the command is typed, often in the folder of the code."""
    path = write(GOOD)
    before = load_run_spec(path)
    left = Path(path).parent / folder
    left.mkdir(parents=True)
    (left / "notes.json").write_text("{}")
    (left / "link").symlink_to("/")
    after = load_run_spec(path)
    assert (after["code_sha256"], after["spec_sha256"]) == (before["code_sha256"], before["spec_sha256"])
