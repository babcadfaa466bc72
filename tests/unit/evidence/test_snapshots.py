# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A pull that brings less than what is home, attacked: the box vanishes after it, and nothing is lost by the pull."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.action import checked_sync
from ansible_collections.tenant.gpu.plugins.module_utils import (
    carrier,
    delivery,
    receipts,
    resume_checkpoints,
    roster,
    snapshots,
    transfer,
)
from ansible_collections.tenant.gpu.plugins.module_utils.box import policy, records, run_manifest
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.plugin_utils import checked_transfer, transfer_order
from evidence_world import FINISHED, World, entry, make_manifest


class Home:
    """A box whose snapshots of run r come home by the very transfer that the harvest uses."""

    def __init__(self, folder: Path) -> None:
        self.box, self.results = folder / "box", folder / "results"
        self.dest = self.results / "demo" / "r" / "box1" / "g2"
        self.beside = self.dest.parent / "beside-g2"

    def pull(self, contents: dict[str, bytes], **more: Any) -> dict[str, Any]:
        shutil.rmtree(self.box, ignore_errors=True)
        for path, data in contents.items():
            place = self.box / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
        files = [_entry(path, data) for path, data in sorted(contents.items())]
        record = make_manifest("r", files, **{"snapshot": True, "state": "running", **more})
        manifest = roster.parse_manifest(record)
        params = {"dest": str(self.dest), "beside": str(self.beside), "extra": "quarantine", "via": ""}
        if snapshots.why_beside(str(self.dest), manifest):
            params = checked_sync.to_beside(params)
        order = transfer_order.Order(
            pull=True,
            src=str(self.box),
            dest=params["dest"],
            files=manifest.files,
            manifest=manifest,
            extra=params["extra"],
            transport="stream",
            patience=carrier.Patience(0, 0, 0.01),
        )
        return checked_transfer.run(order, transfer_order.Far("box1", transfer.Link(), _ask))

    def at_home(self) -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in self.dest.rglob("*") if path.is_file()}

    def newest(self) -> list[tuple[str, int]]:
        """What a new box would go on from."""
        found = resume_checkpoints.newest_checkpoints(str(self.results), "demo", "r", ("box1", 3), "5" * 64)
        return [(each["cell"], each["step"]) for each in found]


def _ask(op: str, files: Any, within_s: float = 0, **options: Any) -> Any:
    return delivery.answer({"within": "", "aside": [], **options, "op": op, "files": files}, False)


def _entry(path: str, data: bytes) -> dict[str, Any]:
    is_checkpoint = "/checkpoints/" in path
    return entry(path, data, *(("json", "checkpoint") if is_checkpoint else ("none", "metrics")))


def checkpoint(cell: str, step: int) -> dict[str, bytes]:
    return {f"{cell}/a1/out/checkpoints/step_{step}.json": b'{"step": %d}' % step}


METRICS = {"a/a1/metrics.jsonl": b'{"step":1}\n'}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def test_law_3_a_snapshot_without_checkpoints_sets_none_aside(home: Home) -> None:
    home.pull({**checkpoint("a", 1000), **METRICS})
    result = home.pull(METRICS)
    assert (result["quarantine"], home.newest()) == ("", [("a", 1000)])
    again = home.pull(METRICS)
    assert (again["changed"], home.newest()) == (False, [("a", 1000)])


def test_law_3_each_cell_keeps_its_own_newest_checkpoint(home: Home) -> None:
    home.pull({**checkpoint("a", 1000), **checkpoint("b", 1000)})
    home.pull({**checkpoint("a", 2000)})
    home.pull({**checkpoint("a", 3000), **checkpoint("b", 900)})
    assert home.newest() == [("a", 3000), ("b", 1000)]
    assert not (home.dest / "a/a1/out/checkpoints/step_2000.json").exists()
    home.pull({**checkpoint("a", 3000), **checkpoint("b", 1000)})
    home.pull({**checkpoint("a", 3000), **checkpoint("b", 1100)})
    assert home.newest() == [("a", 3000), ("b", 1100)]
    assert not (home.dest / roster.KEPT).exists()


def test_law_3_the_newest_of_the_latest_epoch_is_kept_beside_a_higher_step_of_an_earlier_one(home: Home) -> None:
    one, other = (f"a/a1/out/checkpoints/epoch_{of_epoch}.json" for of_epoch in ("1_step_500", "2_step_400"))
    home.pull({one: b"1", other: b"2"})
    home.pull({one: b"1"})
    assert home.newest() == [("a", 400), ("a", 500)]
    home.pull({other: b"2"})
    assert home.newest() == [("a", 400), ("a", 500)]


def test_a_finished_run_and_another_spec_set_aside_what_they_do_not_promise(home: Home) -> None:
    home.pull(checkpoint("a", 1000))
    result = home.pull(METRICS, spec_sha256="6" * 64)
    assert result["quarantine"]
    home.pull(checkpoint("a", 1000))
    result = home.pull(METRICS, snapshot=False, state="done")
    assert result["quarantine"]
    assert not (home.dest / roster.KEPT).exists()


def test_law_3_what_a_failed_run_left_does_not_take_its_checkpoint_back(home: Home) -> None:
    home.pull(checkpoint("a", 1000))
    home.pull(METRICS, snapshot=False, state="failed")
    assert home.newest() == [("a", 1000)]


def test_law_8_a_kept_checkpoint_counts_by_its_bytes_and_the_box_cannot_name_the_record(home: Home) -> None:
    home.pull(checkpoint("a", 1000))
    home.pull(METRICS)
    (home.dest / "a/a1/out/checkpoints/step_1000.json").write_bytes(b'{"step": 1001}')
    assert home.newest() == []
    with pytest.raises(roster.BadManifest, match="reserved name"):
        home.pull({roster.KEPT: b"{}"})


WITHOUT_LOGS = policy.of(list(policy.ROLES), ["*.log"]).as_dict()


def test_law_3_a_new_box_goes_on_from_what_was_pulled_beside(home: Home) -> None:
    """Somebody narrowed the choice while the run was under way: from then on every pull goes beside."""
    home.pull({**checkpoint("a", 100), **METRICS})
    before = home.at_home()
    for step in (900, 1000, 1100):
        result = home.pull(checkpoint("a", step), policy=WITHOUT_LOGS)
        assert (result["dest"], home.newest()) == (str(home.beside), [("a", step)])
    assert [path.name for path in (home.beside / "a/a1/out/checkpoints").iterdir()] == ["step_1100.json"]
    home.pull(METRICS, policy=policy.of(["metrics"], []).as_dict())
    assert home.newest() == [("a", 1100)], "a look at the metrics takes no checkpoint back there either"
    assert home.at_home() == before


def test_law_3_of_one_step_the_whole_pull_counts_before_the_one_beside(home: Home) -> None:
    home.pull(checkpoint("a", 900))
    home.pull(checkpoint("a", 900), policy=WITHOUT_LOGS)
    found = resume_checkpoints.newest_checkpoints(str(home.results), "demo", "r", ("box1", 3), "5" * 64)
    assert [share["folder"] for each in found for share in each["shares"]] == [str(home.dest / "a/a1/out/checkpoints")]


@pytest.mark.parametrize(
    ("via", "beside"),
    [("", ""), ("s3://b/r/box1/g2", "s3://b/r/box1/g2-beside"), ("hf://o/n@main/r/g2/", "hf://o/n@main/r/g2-beside")],
)
def test_law_2_what_goes_beside_replaces_nothing_in_the_store_that_it_passes(via: str, beside: str) -> None:
    assert checked_sync.to_beside({"beside": "/r/beside-g2", "via": via})["via"] == beside


def manifest(**more: Any) -> roster.Manifest:
    return roster.parse_manifest(make_manifest("r", [], **{"snapshot": True, "state": "running", **more}))


def test_law_2_a_snapshot_of_less_lies_beside_what_is_home(tmp_path: Path) -> None:
    def why(there: roster.Manifest, new: roster.Manifest) -> str:
        records.write_record(str(tmp_path / "manifest.json"), "manifest", dict(there.record))
        return snapshots.why_beside(str(tmp_path), new)

    def chosen(roles: list[str], exclude: list[str]) -> roster.Manifest:
        return manifest(policy=policy.of(roles, exclude).as_dict())

    whole, metrics = chosen(list(policy.ROLES), []), chosen(["metrics"], [])
    thin = chosen(list(policy.ROLES), ["optimizer*"])
    assert snapshots.why_beside(str(tmp_path), metrics) == ""
    assert "it leaves out what came home there before (checkpoint, " in why(whole, metrics)
    assert "(optimizer*)" in why(whole, thin)
    assert [why(metrics, whole), why(thin, thin), why(metrics, metrics)] == ["", "", ""]
    finished = manifest(snapshot=False, state="done")
    assert why(finished, whole) == "all of the finished run is home there"
    assert why(finished, manifest(spec_sha256="6" * 64)) == ""
    assert why(manifest(snapshot=False, state="failed"), whole) == ""
    assert why(whole, manifest(snapshot=False, state="done", policy=metrics.record["policy"])) == ""


def test_a_snapshot_of_the_very_files_of_a_finished_run_is_pulled_by_its_manifest(tmp_path: Path) -> None:
    finished = manifest(snapshot=False, state="done")
    assert snapshots.standing_for(str(tmp_path), manifest()) == manifest()
    records.write_record(str(tmp_path / "manifest.json"), "manifest", dict(finished.record))
    assert snapshots.standing_for(str(tmp_path), manifest()) == finished
    others = [manifest(spec_sha256="6" * 64), manifest(generation=3), manifest(snapshot=False, state="done", more=1)]
    for other in others:
        assert snapshots.standing_for(str(tmp_path), other) is other
    records.write_record(str(tmp_path / "manifest.json"), "manifest", dict(manifest().record))
    live = manifest(created_at="2026-11-21T04:00:00Z")
    assert snapshots.standing_for(str(tmp_path), live) is live


@pytest.mark.parametrize("said", [None, 3, [], {"roles": 3}, {"roles": [[]]}, {"roles": ["no such"]}, {"exclude": [3]}])
def test_law_8_a_choice_that_cannot_be_read_is_everything(tmp_path: Path, said: Any) -> None:
    whole = manifest(policy=policy.Policy().as_dict())
    records.write_record(str(tmp_path / "manifest.json"), "manifest", dict(whole.record))
    assert snapshots.why_beside(str(tmp_path), manifest(policy=said)) == ""


def test_a_metrics_only_snapshot_of_a_real_run_takes_no_checkpoint_back(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from test_superseded_evidence import Old

    old = Old(tmp_path, "checkpoints/*.pt", "torch")
    old.save("checkpoints/step-1000.pt", step=1000)
    (old.out.parent / "metrics.jsonl").write_text('{"step":1}\n')
    receipt = old.bring_home()
    look = run_manifest.current(old.layout, "r", snapshot=True, chosen=policy.of(["metrics"], []))
    assert "leaves out" in snapshots.why_beside(str(tmp_path / "home"), roster.parse_manifest(look))
    assert receipt["files"] == 2


# --- receipts -----------------------------------------------------------------------------------------------------


def snapshot_claim(world: World, contents: dict[str, bytes], **more: Any) -> receipts.Claim:
    files = [entry(path, data, "json" if path.endswith(".json") else "none") for path, data in sorted(contents.items())]
    record = make_manifest("r1", files, snapshot=True, **more)
    return world.claim(roster.parse_manifest(record), run_state="snapshot")


def test_law_2_a_snapshot_of_a_finished_run_leaves_its_complete_receipt_as_it_is(tmp_path: Path) -> None:
    world = World(tmp_path).complete()
    path = world.store.receipt_path("demo", "r1", "box1", 2)
    before = Path(path).read_bytes()
    outcome = receipts.establish(world.store, snapshot_claim(world, FINISHED))
    assert (outcome.changed, outcome.receipt["complete"]) == (False, True)
    beside = world.claim(roster.read_manifest(str(world.root("r1"))), run_state="snapshot")
    assert receipts.establish(world.store, beside).changed is False, "by the manifest of the finished run itself"
    with pytest.raises(TenantFailure, match="with other files") as caught:
        receipts.establish(world.store, snapshot_claim(world, {"c0/a1/done.json": FINISHED["c0/a1/done.json"]}))
    assert (caught.value.kind, caught.value.safe) == ("config", "The receipt of the finished run stays in force")
    assert Path(path).read_bytes() == before
    assert world.decide().allowed


def test_law_1_a_snapshot_keeps_no_receipt_of_files_that_are_broken(tmp_path: Path) -> None:
    world = World(tmp_path).complete()
    (world.root("r1") / "c0/a1/out/model.bin").write_bytes(b"wEights")
    with pytest.raises(TenantFailure, match=r"model\.bin"):
        receipts.establish(world.store, snapshot_claim(world, FINISHED))
    assert not os.path.exists(world.store.receipt_path("demo", "r1", "box1", 2))


def test_a_snapshot_of_another_spec_replaces_the_receipt_of_the_earlier_one(tmp_path: Path) -> None:
    world = World(tmp_path).complete()
    outcome = receipts.establish(world.store, snapshot_claim(world, FINISHED, spec_sha256="6" * 64))
    assert (outcome.changed, outcome.receipt["complete"]) == (True, False)
