# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What a new box goes on from: the newest whole checkpoint at home, sharded ones put together by their hashes."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tenant_checkpoint
import torch
import torch.distributed.checkpoint as dcp
from ansible_collections.tenant.gpu.plugins.module_utils.box import manifest, reach, records
from ansible_collections.tenant.gpu.plugins.module_utils.resume_checkpoints import newest_checkpoints

HERE = ("new", 1)
SPEC = "a" * 64


def sharded(folder: Path, step: int, hostile: bool = False) -> dict[str, bytes]:
    """A sharded checkpoint of two rank files, with the helper's manifest: its files by name."""
    path = folder / tenant_checkpoint.checkpoint_name(step, sharded=True)
    state = {f"layer{number}": torch.arange(64.0) * step + number for number in range(4)}
    writer = dcp.FileSystemWriter(str(path), single_file_per_rank=False, thread_count=2)
    dcp.save(state, storage_writer=writer, no_dist=True)
    tenant_checkpoint.write_torch(str(path / "common.pt"), {"step": step, "world": 2})
    for rank in range(2):
        tenant_checkpoint.write_torch(str(path / f"rank-{rank}.pt"), {"rng": rank})
    if hostile:

        class Runs:
            def __reduce__(self) -> tuple[Any, ...]:
                return os.system, (f"touch {folder}/executed",)

        (path / ".metadata").write_bytes(pickle.dumps(Runs()))
    tenant_checkpoint.seal_folder(str(path), {"step": step, "world": 2})
    return {file.name: file.read_bytes() for file in path.iterdir()}


class Home:
    """Results as harvests leave them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.results = folder / "results"
        self.scratch = folder / "scratch"

    def bring(
        self, box: str, files: dict[str, bytes], generation: int = 1, spec: str = SPEC, loader: str = "none"
    ) -> Path:
        root = self.results / "vision" / "digits" / box / f"g{generation}"
        lines = []
        for path, data in files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(data)
            sha256 = records.sha256_file(str(root / path))
            lines.append({"path": path, "bytes": len(data), "sha256": sha256, "role": "checkpoint", "loader": loader})
        identity = {"project": "vision", "box": box, "generation": generation, "provider_id": "7"}
        record = manifest.build(identity, "digits", spec, lines)
        records.write_record(str(root / "manifest.json"), "manifest", record)
        return root

    def bring_step(self, box: str, step: int, names: Callable[[str], bool] = bool, **options: Any) -> Path:
        """Those files of a sharded checkpoint whose names are wanted."""
        attempt = options.pop("attempt", 1)
        files = options.pop("files", None) or sharded(self.scratch / f"{box}-{step}-{attempt}", step)
        folder = f"c1/a{attempt}/out/checkpoints/step-{step:010d}.dcp"
        return self.bring(box, {f"{folder}/{name}": data for name, data in files.items() if names(name)}, **options)

    def found(self, **options: Any) -> list[dict[str, Any]]:
        return newest_checkpoints(str(self.results), "vision", "digits", HERE, **options)

    def step(self) -> int | None:
        found = self.found()
        return found[0]["step"] if found else None


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def test_a_whole_folder_is_found_with_all_its_files(home: Home) -> None:
    home.bring_step("b1", 4)
    root = home.bring_step("b2", 9)
    (found,) = home.found()
    folder = root / "c1/a1/out/checkpoints"
    names = sorted(f"{found['name']}/{path.name}" for path in (folder / found["name"]).iterdir())
    assert (found["cell"], found["step"], found["name"]) == ("c1", 9, "step-0000000009.dcp")
    assert found["shares"] == [{"folder": str(folder), "paths": names}]
    assert {name.split("/")[1] for name in names} >= {".metadata", "__0_0.distcp", "__0_1.distcp", "manifest.json"}
    assert found["bytes"] == sum((folder / name).stat().st_size for name in names)


def of_second_rank(name: str) -> bool:
    return name in ("__0_1.distcp", "rank-1.pt")


def test_the_parts_of_several_boxes_make_one(home: Home) -> None:
    files = sharded(home.scratch, 9)
    home.bring_step("b1", 9, lambda name: not of_second_rank(name), files=files)
    home.bring_step("b3", 4)
    assert home.step() == 4, "its other part is not home"
    home.bring_step("b2", 9, of_second_rank, files=files, attempt=3)  # boxes number their attempts each by itself
    (found,) = home.found()
    assert [len(share["paths"]) for share in found["shares"]] == [len(files) - 2, 2]
    assert sorted(path for share in found["shares"] for path in share["paths"]) == sorted(
        f"step-0000000009.dcp/{name}" for name in files
    )


def test_files_of_two_saves_of_one_step_are_never_mixed(home: Home) -> None:
    """The step was reached twice, and of each save a part is home: by name they would make a whole."""
    first, second = sharded(home.scratch / "1", 9), sharded(home.scratch / "2", 9)
    second["__0_1.distcp"] = second["__0_1.distcp"][::-1]
    home.bring_step("b1", 9, lambda name: not of_second_rank(name), files=first)
    home.bring_step("b2", 9, of_second_rank, files=second)
    assert home.found() == []


@pytest.mark.parametrize("name", [".metadata", "__0_1.distcp", "common.pt", "rank-1.pt", "manifest.json"])
@pytest.mark.parametrize("damage", ["absent", "flipped"])
def test_one_bad_file_means_the_one_before(home: Home, name: str, damage: str) -> None:
    home.bring_step("b1", 4)
    path = home.bring_step("b2", 9) / f"c1/a1/out/checkpoints/step-0000000009.dcp/{name}"
    data = bytearray(path.read_bytes())
    path.unlink()
    if damage == "flipped":
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    assert home.step() == 4


def test_what_runs_code_where_it_is_loaded_is_not_carried(home: Home) -> None:
    """All hashes are right: it was written so. torch would run it on the next box."""
    home.bring_step("b1", 4)
    home.bring_step("b2", 9, files=sharded(home.scratch / "hostile", 9, hostile=True))
    assert home.step() == 4
    assert not list(home.folder.rglob("executed"))


def test_a_manifest_that_points_outside_is_not_followed(home: Home) -> None:
    files = sharded(home.scratch, 9)
    for path in ("../../../../../../manifest.json", "/etc/passwd", "a/../b"):
        files["manifest.json"] = tenant_checkpoint._json(
            {"schema": tenant_checkpoint.SCHEMA, "files": [{"path": path, "bytes": 1, "sha256": "0" * 64}]}
        )
        home.bring_step("b1", 9, files=files)
        assert home.found() == []


def test_files_and_folders_compete_by_step_and_only_of_this_spec(home: Home, tmp_path: Path) -> None:
    tenant_checkpoint.write_torch(str(tmp_path / "one.pt"), {"step": 6})
    single = (tmp_path / "one.pt").read_bytes()
    home.bring_step("b1", 4)
    root = home.bring("b2", {"c1/a1/out/checkpoints/step-0000000006.pt": single})
    home.bring_step("b3", 9, spec="b" * 64)
    (found,) = home.found(spec_sha256=SPEC)
    assert (found["step"], found["name"]) == (6, "step-0000000006.pt")
    assert found["shares"] == [{"folder": str(root / "c1/a1/out/checkpoints"), "paths": [found["name"]]}]
    assert home.found()[0]["step"] == 9


def test_what_is_on_this_very_box_need_not_be_brought_and_its_part_is_joined(home: Home) -> None:
    files = sharded(home.scratch, 9)
    home.bring_step("new", 9, files=files)
    assert home.found() == []
    home.bring_step("new", 9, lambda name: not of_second_rank(name), files=files)
    home.bring_step("b2", 9, of_second_rank, files=files)
    (found,) = home.found()
    assert sum(len(share["paths"]) for share in found["shares"]) == len(files)


def trainer_folder(folder: Path, step: int) -> dict[str, bytes]:
    """What the Trainer of transformers leaves, sealed by our callback: its files by name."""
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    torch.save({"state": torch.ones(3)}, path / "optimizer.pt")
    torch.save({"w": torch.ones(3)}, path / "pytorch_model.bin")
    (path / "trainer_state.json").write_text("{}")
    tenant_checkpoint.seal_folder(str(path), {"step": step})
    return {file.name: file.read_bytes() for file in path.iterdir()}


def test_what_the_trainer_of_transformers_has_saved_is_carried_whole_or_not_at_all(home: Home) -> None:
    old, new = trainer_folder(home.scratch, 500), trainer_folder(home.scratch, 1000)
    place = "c1/a2/out/checkpoints/checkpoint-"
    home.bring("b1", {f"{place}500/{name}": data for name, data in old.items()})
    home.bring("b2", {f"{place}1000/{name}": data for name, data in new.items() if name != "optimizer.pt"})
    (found,) = home.found()
    assert (found["step"], found["name"]) == (500, "checkpoint-500")
    assert found["shares"][0]["paths"] == sorted(f"checkpoint-500/{name}" for name in old)
    home.bring("b2", {f"{place}1000/{name}": data for name, data in new.items()})
    assert home.found()[0]["name"] == "checkpoint-1000"


def test_a_folder_of_the_trainer_without_weights_is_not_carried(home: Home) -> None:
    folder = home.scratch / "checkpoint-1000"
    folder.mkdir(parents=True)
    torch.save({"state": torch.ones(3)}, folder / "optimizer.pt")
    tenant_checkpoint.seal_folder(str(folder), {"step": 1000})
    place = "c1/a2/out/checkpoints/checkpoint-1000"
    home.bring("b1", {f"{place}/{each.name}": each.read_bytes() for each in folder.iterdir()})
    assert home.found() == []


def test_the_file_of_lightning_is_carried(home: Home, tmp_path: Path) -> None:
    tenant_checkpoint.write_torch(str(tmp_path / "one"), {"global_step": 7})
    home.bring("b1", {"c1/a1/out/checkpoints/step-0000000007.ckpt": (tmp_path / "one").read_bytes()})
    assert [(each["step"], each["name"]) for each in home.found()] == [(7, "step-0000000007.ckpt")]


@pytest.mark.parametrize("layout", ["file", "folder", "trainer"])
def test_the_best_comes_along_with_the_newest_that_names_it(home: Home, layout: str) -> None:
    """It came home from the box before the last one."""
    place = "c1/a1/out/checkpoints/"
    for number, (step, best) in enumerate([(4, 4), (6, 4), (9, 4)], 1):
        if layout == "trainer":
            path = home.scratch / f"checkpoint-{step}"
            trainer_folder(home.scratch, step)
            tenant_checkpoint.seal_folder(str(path), {"step": step, "best": best})
        else:
            things = {"model": torch.nn.Linear(2, 2)}
            saver = tenant_checkpoint.Checkpointer(
                things, directory=str(home.scratch), sharded=layout == "folder", environ={}, keep_last=9
            )
            saver.step, saver.best = step, {"step": best, "metric": 0.5}
            path = Path(saver.save(wait=True))
        files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
        home.bring(f"b{number}", {f"{place}{each.relative_to(home.scratch)}": each.read_bytes() for each in files})
    found = home.found()
    assert [(each["cell"], each["step"], each["best"]) for each in found] == [("c1", 9, False), ("c1", 4, True)]
    assert found[1]["shares"][0]["folder"].endswith("/b1/g1/c1/a1/out/checkpoints")
    shutil.rmtree(home.results / "vision" / "digits" / "b1")
    assert [each["step"] for each in home.found()] == [9], "what is not home cannot be brought"


def test_where_the_files_will_lie_on_the_box_and_what_reads_them_is_said(home: Home) -> None:
    home.bring_step("lost", 4)
    (found,) = home.found(spec_sha256=SPEC)
    assert found["dest"] == f"c1/resume/{SPEC[:12]}"
    carried = {f"{found['dest']}/{path}" for share in found["shares"] for path in share["paths"]}
    assert {file["path"] for file in found["files"]} == carried
    assert {file["loader"] for file in found["files"]} == {"none"}, "as the manifest of the run has it"
    assert home.found()[0]["dest"] == "c1/resume"


# --- of a training loop of one's own ----------------------------------------------------------------------------


def test_files_of_other_names_are_carried_where_the_run_spec_calls_them_checkpoints(home: Home) -> None:
    place = "c1/a2/out/checkpoints"
    files = {f"{place}/weights_step_{step}.json": b'{"step": %d}' % step for step in (4, 12)}
    files[f"{place}/optimizer_step_12.json"] = b"{}"
    root = home.bring("b1", files, loader="json")
    (found,) = home.found()
    assert (found["step"], found["best"], found["bytes"]) == (12, False, len(b'{"step": 12}') + 2)
    assert found["shares"] == [
        {"folder": str(root / place), "paths": ["optimizer_step_12.json", "weights_step_12.json"]}
    ]
    assert {file["loader"] for file in found["files"]} == {"json"}


@pytest.mark.parametrize("damage", ["bytes", "structure"])
def test_one_damaged_file_of_a_step_means_the_step_before(home: Home, damage: str) -> None:
    place = "c1/a2/out/checkpoints"
    files = {f"{place}/{name}_step_{step}.json": b"{}" for name in ("weights", "optimizer") for step in (4, 12)}
    if damage == "structure":
        files[f"{place}/optimizer_step_12.json"] = b"{"
    root = home.bring("b1", files, loader="json")
    if damage == "bytes":
        (root / place / "optimizer_step_12.json").write_bytes(b"[]")
    assert home.step() == 4


def test_what_nothing_checks_before_it_is_loaded_stays_at_home(home: Home) -> None:
    """A pickle of a hostile box would run on the next one."""
    home.bring("b1", {"c1/a1/out/checkpoints/step_9.pkl": pickle.dumps({})}, loader="none")
    home.bring("b2", {"c1/a1/out/checkpoints/notes.json": b"{}"}, loader="json")
    assert home.found() == []


def test_what_its_own_loop_left_on_this_very_box_is_not_brought(home: Home) -> None:
    home.bring(HERE[0], {"c1/a1/out/checkpoints/epoch_9.json": b"{}"}, generation=HERE[1], loader="json")
    assert home.found() == []


OWN = "c1/a2/out/checkpoints"


def own(*names: str, place: str = OWN) -> dict[str, bytes]:
    return {f"{place}/{name}.json": b"{}" for name in names}


def carried(found: list[dict[str, Any]]) -> list[tuple[int, list[str]]]:
    return [(each["step"], [Path(file["path"]).stem for file in each["files"]]) for each in found]


def test_law_3_a_half_saved_step_brings_the_whole_one_before_it(home: Home) -> None:
    """The pull fell between its two files: the new box must hold what the old one held."""
    home.bring(
        "b1", own("model-step-30", "model-step-20", "optim-step-20", "optim-step-10", "model-step-10"), loader="json"
    )
    assert carried(home.found()) == [(30, ["model-step-30"]), (20, ["model-step-20", "optim-step-20"])]
    assert [each["best"] for each in home.found()] == [False, False]
    home.bring("b2", own("model-step-30", "optim-step-30", place="c1/a1/out/checkpoints"), loader="json")
    assert carried(home.found()) == [(30, ["model-step-30", "optim-step-30"])], "another try has saved all of it"


def test_of_a_half_saved_step_only_a_sound_one_is_the_completion_and_of_no_other_cell(home: Home) -> None:
    root = home.bring(
        "b1",
        own("model-step-30", *(f"{name}-step-{n}" for n in (10, 20) for name in ("model", "optim"))),
        loader="json",
    )
    home.bring("b2", own("other-step-5", place="c2/a1/out/checkpoints"), loader="json")
    (root / OWN / "optim-step-20.json").write_bytes(b"[]")
    assert [step for step, _files in carried(home.found())] == [30, 10, 5]


def test_law_3_a_rarely_written_file_comes_along_and_throws_no_run_back(home: Home) -> None:
    home.bring("b1", own("model-step-30", "best-step-10", "model-step-20"), loader="json")
    assert carried(home.found()) == [(30, ["model-step-30"]), (10, ["best-step-10"])]


def test_where_every_file_has_a_name_of_its_own_not_all_are_carried(home: Home) -> None:
    home.bring("b1", own(*(f"{chr(97 + n)}-step-{n}" for n in range(20))), loader="json")
    assert [step for step, _files in carried(home.found())] == list(range(19, 19 - reach.MOST, -1))


def test_law_3_a_step_counted_within_its_epoch_is_gone_on_from_in_the_latest_epoch(home: Home) -> None:
    """Which of the two is the later only the loop knows: its steps may be counted through, and its epochs anew."""
    home.bring("b1", own(*(f"epoch_{one}" for one in ("1_step_400", "1_step_500", "2_step_100"))), loader="json")
    assert carried(home.found()) == [(100, ["epoch_2_step_100"]), (500, ["epoch_1_step_500"])]
    root = home.bring("b2", own("epoch_2_step_400"), loader="json")
    assert carried(home.found()) == [(400, ["epoch_2_step_400"]), (500, ["epoch_1_step_500"])]
    (root / OWN / "epoch_2_step_400.json").write_bytes(b"[]")
    assert carried(home.found()) == [(100, ["epoch_2_step_100"]), (500, ["epoch_1_step_500"])]


def test_of_steps_that_are_counted_through_the_latest_is_enough(home: Home) -> None:
    names = ("epoch=3-step=400", "epoch=4-step=500", "epoch=3-step=450")
    home.bring("b1", own(*names), loader="json")
    assert carried(home.found()) == [(500, ["epoch=4-step=500"])]
