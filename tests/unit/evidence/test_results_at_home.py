# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Laws 2 and 5 after the loss of the state store: what lies finished at home is not run again, and opens no gate."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from ansible_collections.tenant.gpu.plugins.action import results_at_home as action
from ansible_collections.tenant.gpu.plugins.module_utils import evidence, gate, parts, receipts, results_at_home, roster
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.journal import Journal
from ansible_collections.tenant.gpu.plugins.module_utils.results_at_home import Asker, Found
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import BoxIdentity, StateStore
from evidence_world import IDENTITY, World, edit_json, entry, make_manifest
from finished_run import bring_home

SPEC: dict[str, Any] = {"id": "r1", "spec_sha256": "5" * 64, "parts": []}
GONE = Asker("box1")
MODEL = "c0/a1/out/model.bin"


class Loss:
    """A run that came home with a receipt, and a store that knows nothing of it any more."""

    def __init__(self, folder: Path) -> None:
        self.world = World(folder)
        self.world.give_receipt("r1")
        self.store = StateStore(str(folder / "empty"))
        self.root = self.world.root("r1")

    def find(self, asker: Asker = GONE, **options: Any) -> Found | None:
        spec = options.pop("spec", SPEC)
        return results_at_home.find(self.store, "demo", spec, str(self.world.results), asker, **options)

    def promise(self, **changes: Any) -> None:
        """Another manifest beside the same files."""
        files = json.loads((self.root / "manifest.json").read_text())["files"]
        records.write_record(str(self.root / "manifest.json"), "manifest", make_manifest("r1", files, **changes))

    @property
    def record_path(self) -> Path:
        return Path(self.store.at_home_path("demo", "r1", "box1", 2))


@pytest.fixture
def loss(tmp_path: Path) -> Loss:
    return Loss(tmp_path)


def test_without_its_store_a_finished_run_had_no_receipt(loss: Loss) -> None:
    assert parts.finished_receipt(loss.world.store, "demo", SPEC) is not None
    assert parts.finished_receipt(loss.store, "demo", SPEC) is None


def test_law_5_it_is_found_again_and_says_what_it_is(loss: Loss) -> None:
    found = loss.find()
    assert found is not None
    assert found.news
    record = records.read_record(str(loss.record_path), "receipt")
    assert record == found.record
    assert record["complete"] is True
    assert (record["box"], record["generation"], record["files"]) == ("box1", 2, 2)
    assert record["copies"][0]["uri"] == loss.root.as_uri()
    assert [check["path"] for check in record["checks"]] == ["c0/a1/done.json"]
    assert record["rebuilt"]["from"] == str(loss.root / "manifest.json")
    assert "opens no gate" in str(found)
    assert [line["verb"] for line in Journal(loss.store).lines()] == ["rebuild-record", "rebuild-record"]


def test_law_9_what_was_proven_is_not_hashed_again(loss: Loss, monkeypatch: pytest.MonkeyPatch) -> None:
    first = loss.find()
    assert first is not None
    monkeypatch.setattr(receipts, "verify", lambda *_args, **_named: pytest.fail("it was hashed again"))
    assert loss.find() == Found(first.record, news=False)


def test_other_results_in_the_same_place_are_proven_anew(loss: Loss) -> None:
    first = loss.find()
    assert first is not None
    files = [entry("c0/a1/done.json", (loss.root / "c0/a1/done.json").read_bytes(), "json")]
    records.write_record(str(loss.root / "manifest.json"), "manifest", make_manifest("r1", files))
    again = loss.find()
    assert again is not None
    assert again.news
    assert (first.record["files"], again.record["files"]) == (2, 1)


def test_a_check_run_proves_it_and_writes_nothing(loss: Loss) -> None:
    found = loss.find(check_mode=True)
    assert found is not None
    assert found.news
    assert not Path(loss.store.root).exists()


def test_law_2_it_is_no_receipt_and_the_gate_does_not_know_it(loss: Loss) -> None:
    assert loss.find() is not None
    assert loss.store.receipts("demo", "r1") == []
    assert loss.store.finished_receipt("demo", "r1", "5" * 64) is None
    # Everything else that the gate asks for is there: the box is known and sealed, and somebody consented.
    world = loss.world
    world.store = loss.store
    loss.store.update_box("demo", "box1", 2, provider_id="4711", deploy_started_at="2026-11-21T01:10:00Z")
    world.save_reading()
    world.approve()
    told = evidence.gather(world.store, IDENTITY, "destroy", [], world.view(), world.now)
    shut = gate.decide(told)
    assert not shut.allowed
    # With a receipt, which only a harvest writes, the same evidence is enough.
    receipts.establish(world.store, world.claim(roster.read_manifest(str(loss.root))))
    assert gate.decide(evidence.gather(world.store, IDENTITY, "destroy", [], world.view(), world.now)).allowed


# --- nothing that says that it is finished: rented as before --------------------------------------------------------

NOT_FINISHED: dict[str, Callable[[Loss], object]] = {
    "nothing lies there": lambda loss: shutil.rmtree(loss.world.results),
    "no manifest lies beside them": lambda loss: (loss.root / "manifest.json").unlink(),
    "of another spec": lambda loss: loss.promise(spec_sha256="6" * 64),
    "of another spec, and edited": lambda loss: edit_json(
        str(loss.root / "manifest.json"), spec_sha256="6" * 64, digest="0" * 64
    ),
    "a pull of the live run": lambda loss: loss.promise(snapshot=True),
    "of a run that failed": lambda loss: loss.promise(state="failed"),
    "that promises no file": lambda loss: records.write_record(
        str(loss.root / "manifest.json"), "manifest", make_manifest("r1", [])
    ),
    "of another project": lambda loss: loss.promise(identity=BoxIdentity("other", "box1", 2, "4711")),
    "renamed to be trained again": lambda loss: loss.root.rename(loss.root.with_name("g2.old")),
}


@pytest.mark.parametrize("make", NOT_FINISHED.values(), ids=NOT_FINISHED)
def test_what_does_not_say_that_it_finished_is_rented_for(loss: Loss, make: Callable[[Loss], object]) -> None:
    make(loss)
    assert loss.find() is None
    assert not list(Path(loss.store.root).rglob("*.json"))


def test_it_can_be_renamed_to_be_trained_again_after_it_was_found(loss: Loss) -> None:
    assert loss.find() is not None
    loss.root.rename(loss.root.with_name("g2.old"))
    assert loss.find() is None


def test_no_results_folder_is_nothing(loss: Loss) -> None:
    assert results_at_home.find(loss.store, "demo", SPEC, "", GONE) is None


# --- what lies there cannot be proven: nothing is rented ------------------------------------------------------------


def _promise_broken_json(loss: Loss) -> None:
    (loss.root / "c0/a1/done.json").write_bytes(b"{torn")
    files = [entry(MODEL, b"weights"), entry("c0/a1/done.json", b"{torn", "json")]
    records.write_record(str(loss.root / "manifest.json"), "manifest", make_manifest("r1", files))


HARM: dict[str, tuple[Callable[[Loss], object], str]] = {
    "a file of the same size": (lambda loss: (loss.root / MODEL).write_bytes(b"wEights"), "model.bin"),
    "a file is missing": (lambda loss: (loss.root / MODEL).unlink(), "model.bin"),
    "a checkpoint does not load": (_promise_broken_json, "done.json"),
    "the manifest was edited": (lambda loss: edit_json(str(loss.root / "manifest.json"), files=[]), "manifest.json"),
    "the manifest is torn": (lambda loss: (loss.root / "manifest.json").write_text("{"), "manifest.json"),
}


@pytest.mark.parametrize(("harm", "named"), HARM.values(), ids=HARM)
def test_law_1_what_cannot_be_proven_is_not_rented_for_and_a_word_trains_it_again(
    loss: Loss, harm: Callable[[Loss], object], named: str
) -> None:
    harm(loss)
    with pytest.raises(TenantFailure, match=named) as caught:
        loss.find()
    assert caught.value.kind == "evidence_missing"
    assert caught.value.box == "box1"
    assert "nothing was rented" in caught.value.safe
    assert "trained again" in caught.value.fix
    assert str(loss.root) in caught.value.fix
    assert not loss.record_path.exists()
    loss.root.rename(loss.root.with_name("g2.old"))
    assert loss.find() is None


def test_a_file_whose_time_did_not_move_is_read_all_the_same(loss: Loss) -> None:
    place = loss.root / MODEL
    before = place.stat()
    place.write_bytes(b"wEights")
    os.utime(place, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(TenantFailure):
        loss.find()


def test_a_box_that_is_there_costs_no_rental_and_goes_on(loss: Loss) -> None:
    (loss.root / MODEL).unlink()
    assert loss.find(Asker("box9", 1, "99")) is None


def test_an_older_share_that_is_right_counts_when_the_newest_is_not(loss: Loss) -> None:
    newer = loss.root.with_name("g3")
    shutil.copytree(loss.root, newer)
    files = json.loads((newer / "manifest.json").read_text())["files"]
    promised = make_manifest("r1", files, BoxIdentity("demo", "box1", 3, "4712"))
    records.write_record(str(newer / "manifest.json"), "manifest", promised)
    newest = loss.find(check_mode=True)
    (newer / MODEL).unlink()
    found = loss.find()
    assert newest is not None
    assert found is not None
    assert (newest.record["generation"], found.record["generation"]) == (3, 2)


# --- who answers for itself -----------------------------------------------------------------------------------------


def test_a_machine_that_is_still_there_is_asked_itself(loss: Loss) -> None:
    loss.promise(provider_id="4711")
    assert loss.find(Asker("box1", 2, "4711")) is None
    # Another candidate is not started for what is home.
    assert loss.find(Asker("box9", 1, "99")) is not None


def test_what_the_store_knows_and_has_no_receipt_of_never_came_home(loss: Loss) -> None:
    loss.store.update_box("demo", "box1", 2, provider_id="4711")
    assert loss.find() is None
    (loss.root / MODEL).unlink()
    assert loss.find() is None, "a harvest that was cut off is repeated or resumed, as before"


def test_another_machine_of_the_same_number_does_not_answer_for_it(loss: Loss) -> None:
    """A lost store counts generations from 1 again."""
    loss.promise(provider_id="4711")
    loss.store.update_box("demo", "box1", 2, provider_id="5000")
    assert loss.find(Asker("box1", 2, "5000")) is not None


# --- several boxes --------------------------------------------------------------------------------------------------


def test_a_run_of_parts_is_home_with_all_of_them(loss: Loss) -> None:
    spec = {**SPEC, "parts": ["box1", "box9"]}
    assert loss.find(spec=spec) is None
    other = loss.world.results / "demo/r1/box9/g1"
    shutil.copytree(loss.root, other)
    files = json.loads((other / "manifest.json").read_text())["files"]
    records.write_record(
        str(other / "manifest.json"), "manifest", make_manifest("r1", files, BoxIdentity("demo", "box9", 1, "99"))
    )
    found = loss.find(spec=spec)
    assert found is not None
    assert found.record["parts"] == ["box1", "box9"]
    shutil.rmtree(loss.store.root)
    (other / MODEL).unlink()
    with pytest.raises(TenantFailure, match="box9"):
        loss.find(spec=spec)


class Shards:
    """A run whose checkpoint lies in shards on two boxes, harvested from both, and then the loss of its store."""

    spec: ClassVar[dict[str, Any]] = {**SPEC, "parts": ["p1", "p2"]}

    def __init__(self, folder: Path) -> None:
        pytest.importorskip("torch")
        pytest.importorskip("safetensors")
        self.results, self.store = folder / "results", StateStore(str(folder / "empty"))
        harvested = StateStore(str(folder / "state"))
        index = json.dumps({"metadata": {}, "weight_map": {"a": "m-1.safetensors", "b": "m-2.safetensors"}}).encode()
        shares = {
            "p1": {"main/a1/out/model/m-1.safetensors": (tensor("a"), "hf")},
            "p2": {
                "main/a1/out/model/m-2.safetensors": (tensor("b"), "hf"),
                "main/a1/out/model/model.safetensors.index.json": (index, "hf"),
            },
        }
        self.whole = self.results / "demo/r1/whole"
        self.roots = {}
        for box, contents in shares.items():
            self.roots[box] = bring_home(self.results, "r1", "5" * 64, box, contents=contents)
            manifest = roster.read_manifest(str(self.roots[box]))
            identity = BoxIdentity("demo", box, 1, "42")
            claim = receipts.Claim(identity, str(self.roots[box]), manifest, "done", parts=("p1", "p2"))
            parts.establish(harvested, claim, str(self.whole))
        assert parts.finished_receipt(harvested, "demo", self.spec) is not None

    def find(self) -> Found | None:
        return results_at_home.find(self.store, "demo", self.spec, str(self.results), Asker("p1"))


def tensor(name: str) -> bytes:
    """A safetensors file of one number."""
    header = json.dumps({name: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    return struct.pack("<Q", len(header)) + header + struct.pack("<f", 1.5)


def test_shards_of_several_boxes_are_home_with_their_whole(tmp_path: Path) -> None:
    shards = Shards(tmp_path)
    found = shards.find()
    assert found is not None
    assert (found.record["complete"], found.record["waits_for"]) == (True, [])
    assert found.record["whole"]["uri"] == shards.whole.as_uri()
    assert shards.find() == Found(found.record, news=False)


def _make_of_others(shards: Shards) -> None:
    """An earlier whole, right in itself."""
    path = shards.whole / "manifest.json"
    record = json.loads(path.read_text())
    record["parts"][0]["manifest_digest"] = "0" * 64
    digest = records.digest({name: record[name] for name in ("project", "run_id", "parts", "files")})
    edit_json(str(path), parts=record["parts"], digest=digest)


SHATTERED: dict[str, Callable[[Shards], object]] = {
    "a share is short of a file": lambda shards: (shards.roots["p1"] / "main/a1/out/model/m-1.safetensors").unlink(),
    "there is no whole": lambda shards: shutil.rmtree(shards.whole),
    "a file of the whole is gone": lambda shards: next(shards.whole.rglob("m-2.safetensors")).unlink(),
    "the whole was made of other shares": _make_of_others,
}


@pytest.mark.parametrize("shatter", SHATTERED.values(), ids=SHATTERED)
def test_law_1_shards_that_are_not_known_to_load_as_one_are_not_rented_for(
    tmp_path: Path, shatter: Callable[[Shards], object]
) -> None:
    shards = Shards(tmp_path)
    shatter(shards)
    with pytest.raises(TenantFailure, match="results of this very spec") as caught:
        shards.find()
    assert caught.value.kind == "evidence_missing"


# --- the task -------------------------------------------------------------------------------------------------------


def run(loss: Loss, **changes: Any) -> dict[str, Any]:
    options = {
        "project": "demo", "box": "box1", "generation": 0, "provider_id": "", "state_dir": loss.store.root,
        "run_spec": {**SPEC, "finished": None}, "results_dir": str(loss.world.results), **changes,
    }  # fmt: skip
    task = SimpleNamespace(args=options, check_mode=False, async_val=0, delegate_to=None, action="results_at_home")
    box = SimpleNamespace(transport="ssh", become=None, _shell=SimpleNamespace(tmpdir=None))
    templar = SimpleNamespace(template=lambda value: value)
    return action.ActionModule(task, box, SimpleNamespace(), None, templar, None).run(
        task_vars={"inventory_hostname": "box1"}
    )


def test_the_task_tells_the_roles_that_the_run_is_finished(loss: Loss) -> None:
    first, second = run(loss), run(loss)
    assert (first["changed"], second["changed"]) == (True, False)
    assert second["ansible_facts"]["run_spec"]["finished"]["rebuilt"]
    (loss.root / MODEL).write_bytes(b"wEights")
    shutil.rmtree(loss.store.root)
    failed = run(loss)
    assert failed["failed"]
    assert failed["failure"]["kind"] == "evidence_missing"
    shutil.rmtree(loss.world.results)
    assert run(loss) == {"changed": False}
