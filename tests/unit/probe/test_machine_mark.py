# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Which machine a box is, once its address says nothing of it: the decision, and the lines of sh that it rests on."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import machine_mark
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.machine_mark import Seen, Subject

SUBJECT = Subject("vision", "a1", 1, "/root/autodl-tmp")
ID, OTHER_ID = "00112233445566aa", "ffeeddccbbaa9988"
HERE = {"env": "4a7f45b869-e38322e3", "hostname": "autodl-container-4a7f45b869-e38322e3"}
CLONE = {"env": "d4594a8753-96d5e6b4", "hostname": "autodl-container-d4594a8753-96d5e6b4"}
WANTED = {"env": "AutoDLContainerUUID", "hostname": "autodl-container-*"}
MACHINE = {"id": ID, "instance": HERE, "address": "connect.westb.seetacloud.com:30122"}
NOW = "2026-11-22T00:00:00Z"


def mark(**changes: Any) -> dict[str, Any]:
    known = {"project": "vision", "box": "a1", "generation": 1, "id": ID, "instance": HERE, "marked_at": NOW}
    return {"schema": "gpu-tenant/box-mark/v1", **known, **changes}


def refused(seen: Seen, subject: Subject = SUBJECT, machine: dict[str, Any] | None = None) -> TenantFailure:
    with pytest.raises(TenantFailure) as caught:
        machine_mark.proven(subject, machine or MACHINE, seen)
    assert (caught.value.kind, caught.value.box) == ("probe_refused", "a1")
    assert caught.value.fix
    return caught.value


# --- a machine on record -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shown", [HERE, {"env": HERE["env"]}, {"hostname": HERE["hostname"]}])
def test_the_machine_on_record_is_the_same_one_by_whatever_it_shows(shown: dict[str, str]) -> None:
    machine_mark.proven(SUBJECT, MACHINE, Seen(shown, mark()))


def test_a_clone_carries_the_mark_and_is_refused() -> None:
    failure = refused(Seen(CLONE, mark()))
    assert "a clone of it that carries its mark" in failure.what
    assert CLONE["env"] in failure.what
    assert HERE["env"] in failure.what
    assert "tenant_generation: 2" in failure.fix


def test_one_witness_that_contradicts_is_enough() -> None:
    assert "is on record" in refused(Seen({**HERE, "env": CLONE["env"]}, mark())).what


def test_an_instance_that_says_nothing_is_not_believed() -> None:
    assert "does not say which instance it is" in refused(Seen({}, mark())).what
    assert "does not say" in refused(Seen(HERE, mark()), machine={**MACHINE, "instance": {}}).what


@pytest.mark.parametrize(
    ("seen", "word"),
    [
        (Seen(HERE, None), "is gone: its data disk was emptied"),
        (Seen(HERE, None, has_folder=False), "is gone with its folder"),
        (Seen(HERE, None, is_damaged=True), "cannot be read"),
    ],
)
def test_a_mark_that_was_removed_is_refused_with_its_place(seen: Seen, word: str) -> None:
    failure = refused(seen)
    assert word in failure.what
    assert "/root/autodl-tmp/.gpu-tenant-box.json" in failure.what
    assert "tenant_generation: 2" in failure.fix


@pytest.mark.parametrize(
    "changes",
    [{"id": OTHER_ID}, {"box": "a2"}, {"generation": 2}, {"project": "speech"}, {"box": "a2", "id": OTHER_ID}],
)
def test_the_mark_of_another_box_is_refused(changes: dict[str, Any]) -> None:
    assert "carries the mark" in refused(Seen(HERE, mark(**changes))).what


# --- a machine of which nothing is on record ---------------------------------------------------------------------


def first(seen: Seen, record: dict[str, Any] | None = None, subject: Subject = SUBJECT) -> machine_mark.Verdict:
    return machine_mark.first_mark(subject, record or {}, "connect:30122", seen, OTHER_ID, NOW)


def test_a_new_machine_is_marked_with_its_instance() -> None:
    verdict = first(Seen(HERE))
    assert verdict.id == OTHER_ID
    assert verdict.write == mark(id=OTHER_ID)


def test_a_mark_of_ours_is_found_again_with_an_empty_store() -> None:
    assert first(Seen(HERE, mark())) == machine_mark.Verdict(ID)


def test_with_an_empty_store_a_clone_is_still_told_by_its_mark() -> None:
    with pytest.raises(TenantFailure, match="a clone of it that carries its mark"):
        first(Seen(CLONE, mark()))


def test_the_mark_of_an_earlier_generation_gives_way() -> None:
    """Whoever raised the generation said so: a clone that takes the place, or a machine whose record was lost."""
    verdict = first(Seen(CLONE, mark()), subject=Subject("vision", "a1", 2, "/root/autodl-tmp"))
    assert verdict.write == mark(id=OTHER_ID, generation=2, instance=CLONE)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"box": "a2"}, "a2 g1 (project vision): it is that box, or a clone of it"),
        ({"project": "speech"}, "a1 g1 (project speech): it is that box, or a clone of it"),
        ({"generation": 3}, "a1 g3 (project vision), a later one"),
    ],
)
def test_what_belongs_to_another_box_is_not_taken_over(changes: dict[str, Any], word: str) -> None:
    with pytest.raises(TenantFailure) as caught:
        first(Seen(HERE, mark(**changes)))
    assert word in caught.value.what


def test_a_damaged_mark_is_not_overwritten() -> None:
    with pytest.raises(TenantFailure, match="no mark that can be read"):
        first(Seen(HERE, is_damaged=True))


def test_a_machine_that_names_no_instance_is_known_by_its_address() -> None:
    assert first(Seen({})) == machine_mark.Verdict("")


def test_a_record_by_address_is_marked_where_it_stands_and_refused_elsewhere() -> None:
    admitted = {"provider_id": "ssh:connect:30122", "admitted_at": NOW}
    assert first(Seen(HERE), admitted).id == OTHER_ID
    with pytest.raises(TenantFailure) as caught:
        first(Seen(HERE), {**admitted, "provider_id": "ssh:connect:4711"})
    assert "ssh:connect:4711" in caught.value.what
    assert "tenant_generation: 2" in caught.value.fix
    # One that was only refused has no evidence that could be given to a stranger.
    assert first(Seen(HERE), {"provider_id": "ssh:connect:4711", "rejected_at": NOW}).id == OTHER_ID


# --- on the box --------------------------------------------------------------------------------------------------


def run(script: str, before: str = "") -> str:
    done = subprocess.run(["/bin/sh", "-c", before + script], capture_output=True, text=True, timeout=600, check=False)
    assert not done.stderr
    return done.stdout


def looked(folder: Path, host: str = HERE["hostname"]) -> Seen:
    script = machine_mark.look_script("n0nce", str(folder), WANTED)
    return machine_mark.parse("noise\n" + run(script, f"hostname() {{ echo {host}; }}\n"), "n0nce", WANTED)


def test_what_is_written_on_a_box_is_read_there(tmp_path: Path) -> None:
    folder = tmp_path / "it's a disk"
    assert looked(folder) == Seen({"hostname": HERE["hostname"]}, None, False, False)
    for _again in range(2):
        assert machine_mark.was_written(run(machine_mark.write_script("n0nce", str(folder), mark())), "n0nce")
    assert looked(folder) == Seen({"hostname": HERE["hostname"]}, mark())
    assert [path.name for path in folder.iterdir()] == [machine_mark.MARK_NAME]


def test_a_mark_that_cannot_be_written_is_not_said_to_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    script = machine_mark.write_script("n0nce", str(tmp_path / "file" / "x"), mark())
    done = subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, timeout=600, check=False)
    assert not machine_mark.was_written(done.stdout, "n0nce")


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "x" * 9000, json.dumps(mark(schema="gpu-tenant/box-mark/v2")), json.dumps(mark(id="../x")),
        json.dumps(mark(box="a1\u202e")), json.dumps(mark(generation=True)), json.dumps(mark(instance=["x"])),
        json.dumps(mark(instance={"env": "a b\n"})),
    ],
)  # fmt: skip
def test_a_file_that_is_no_mark_is_damage_and_not_absence(tmp_path: Path, text: str) -> None:
    (tmp_path / machine_mark.MARK_NAME).write_text(text)
    seen = looked(tmp_path)
    assert seen.mark is None
    assert seen.is_damaged


@pytest.mark.parametrize("host", ["gpu-7", "autodl-container-x$(id)", ""])
def test_a_name_that_is_none_of_the_platforms_is_no_witness(tmp_path: Path, host: str) -> None:
    assert looked(tmp_path, f"'{host}'").instance == {}


def test_a_mark_too_deep_to_be_read_is_damage_and_not_absence() -> None:
    told = f"n0nce begin\nn0nce there\nn0nce mark {'[' * 200_000}\nn0nce end\n"
    seen = machine_mark.parse(told, "n0nce", WANTED)
    assert (seen.mark, seen.is_damaged) == (None, True)


def test_an_answer_without_its_end_is_none() -> None:
    with pytest.raises(machine_mark.NoAnswer):
        machine_mark.parse("n0nce begin\nn0nce hostname autodl-container-x\n", "n0nce", WANTED)


def test_where_a_platform_names_nothing_nothing_is_looked_for() -> None:
    for value in (None, {}, {"env": "", "hostname": ""}, "x"):
        assert machine_mark.identity_wanted(value) == {}
