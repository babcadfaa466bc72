# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Artifacts: every loader's structure check, stable hashing, globs, collecting, newest checkpoint."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box import artifacts, records, structure, zip_archive
from ansible_collections.tenant.gpu.plugins.module_utils.box.names import UnsafeName
from ansible_collections.tenant.gpu.plugins.module_utils.box.refusal import Refused
from hypothesis import given, settings
from hypothesis import strategies as st


def torch_zip(step: int = 1) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"step": step}, 2))
        archive.writestr("archive/data/0", bytes(range(256)) * 8)
    return buffer.getvalue()


def npz() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        head = b"{'descr': '<f8', 'fortran_order': False, 'shape': (8,), }\n"
        archive.writestr("weights.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + bytes(64))
    return buffer.getvalue()


def safetensors(header: Any = None, data: bytes = bytes(24)) -> bytes:
    tensors = {
        "__metadata__": {"format": "pt"},
        "a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]},
        "b": {"dtype": "I64", "shape": [1], "data_offsets": [16, 24]},
    }
    text = json.dumps(tensors if header is None else header).encode()
    return struct.pack("<Q", len(text)) + text + data


WHOLE: dict[str, Callable[[], bytes]] = {
    "torch": torch_zip,
    "npz": npz,
    "safetensors": safetensors,
    "json": lambda: b'{"accuracy": 0.97}',
}


@pytest.mark.parametrize("loader", [*WHOLE, "none"])
def test_a_whole_file_is_sound(tmp_path: Path, loader: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(WHOLE.get(loader, lambda: b"anything")())
    assert structure.check_structure(str(path), loader) == ""


@pytest.mark.parametrize("loader", list(WHOLE))
@settings(max_examples=25)
@given(data=st.data())
def test_a_file_cut_short_anywhere_is_refused(
    tmp_path_factory: pytest.TempPathFactory, loader: str, data: st.DataObject
) -> None:
    whole = WHOLE[loader]()
    path = tmp_path_factory.mktemp("cut") / "file"
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    assert structure.check_structure(str(path), loader) != ""


@pytest.mark.parametrize("loader", ["torch", "npz"])
def test_a_flipped_bit_in_the_data_is_refused(tmp_path: Path, loader: str) -> None:
    whole = bytearray(WHOLE[loader]())
    whole[len(whole) // 2 - 20] ^= 1
    path = tmp_path / "file"
    path.write_bytes(whole)
    assert structure.check_structure(str(path), loader) != ""


def test_zip_files_of_others_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(npz())
    assert "torch.save" in structure.check_structure(str(path), "torch")
    path.write_bytes(torch_zip())
    assert "numpy.savez" in structure.check_structure(str(path), "npz")


@pytest.mark.parametrize(
    "data",
    [
        safetensors(data=bytes(25)),
        safetensors(data=bytes(23)),
        safetensors({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 24]}}),
        safetensors({"a": {"dtype": "F32", "shape": [2], "data_offsets": [16, 24]}}),
        safetensors({"a": {"dtype": "F32", "shape": [6], "data_offsets": [24, 0]}}),
        safetensors({"a": {"dtype": "F32", "shape": "x", "data_offsets": [0, 24]}}),
        safetensors({"a": 3}),
        safetensors([]),
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 3) + b"[[[" + bytes(4),
    ],
)
def test_a_safetensors_header_that_lies_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    assert structure.check_structure(str(path), "safetensors") != ""


def test_the_files_of_real_libraries_are_sound(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    numpy = pytest.importorskip("numpy")
    from safetensors.torch import save_file

    tensors = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(3, dtype=torch.bfloat16), "c": torch.tensor(True)}
    torch.save(tensors, tmp_path / "m.pt")
    save_file(tensors, tmp_path / "m.safetensors", metadata={"k": "v"})
    numpy.savez_compressed(tmp_path / "m.npz", x=numpy.arange(5))
    for name, loader in (("m.pt", "torch"), ("m.safetensors", "safetensors"), ("m.npz", "npz")):
        assert structure.check_structure(str(tmp_path / name), loader) == ""
        assert structure.check_structure(str(tmp_path / name), "hf") == ""


# --- hashing --------------------------------------------------------------------------------------------------


def test_a_hash_is_of_a_file_at_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100)
    assert artifacts.hash_stable(str(path)) == (100, records.sha256_file(str(path)))

    real = os.lstat

    def grows(name: str) -> os.stat_result:
        with open(path, "ab") as stream:
            stream.write(b"y")
        return real(name)

    monkeypatch.setattr(artifacts.os, "lstat", grows)
    with pytest.raises(artifacts.FileChanged):
        artifacts.hash_stable(str(path))


def test_a_file_replaced_under_the_hash_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, other = tmp_path / "file", tmp_path / "other"
    path.write_bytes(b"old")
    other.write_bytes(b"new")
    real = os.lstat

    def replaced(name: str) -> os.stat_result:
        if other.exists():
            os.replace(other, path)
        return real(name)

    monkeypatch.setattr(artifacts.os, "lstat", replaced)
    with pytest.raises(artifacts.FileChanged):
        artifacts.hash_stable(str(path))


def test_only_plain_files_are_hashed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/hostname")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe"):
        with pytest.raises(UnsafeName):
            artifacts.hash_stable(str(tmp_path / name))
    with pytest.raises(OSError, match="directory"):
        artifacts.hash_stable(str(tmp_path / "absent" / "file"))


# --- collecting -------------------------------------------------------------------------------------------------

MODEL = {"glob": "model.pt", "role": "other", "loader": "torch"}
CHECKPOINTS = {"glob": "checkpoints/step-*.pt", "role": "checkpoint", "loader": "torch"}


@pytest.fixture
def output(tmp_path: Path) -> Path:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "model.pt").write_bytes(torch_zip(3))
    for step in (1, 2):
        (tmp_path / "checkpoints" / f"step-{step:010d}.pt").write_bytes(torch_zip(step))
    return tmp_path


def test_collected_lines_are_what_is_on_the_disk(output: Path) -> None:
    lines, skipped = artifacts.collect(str(output), [MODEL, CHECKPOINTS])
    assert sorted(line["path"] for line in lines) == [
        "checkpoints/step-0000000001.pt",
        "checkpoints/step-0000000002.pt",
        "model.pt",
    ]
    assert skipped == []
    for line in lines:
        path = output / line["path"]
        assert (line["bytes"], line["sha256"]) == (path.stat().st_size, records.sha256_file(str(path)))
        assert set(line) == {"path", "bytes", "sha256", "role", "loader"}


def test_a_damaged_checkpoint_is_left_out_while_a_sound_one_is_there(output: Path) -> None:
    newest = output / "checkpoints" / "step-0000000002.pt"
    newest.write_bytes(newest.read_bytes()[:100])
    lines, skipped = artifacts.collect(str(output), [CHECKPOINTS])
    assert [line["path"] for line in lines] == ["checkpoints/step-0000000001.pt"]
    assert [line["path"] for line in skipped] == ["checkpoints/step-0000000002.pt"]
    (output / "checkpoints" / "step-0000000001.pt").write_bytes(b"")
    with pytest.raises(Refused) as refused:
        artifacts.collect(str(output), [CHECKPOINTS])
    assert refused.value.code == 22


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda output: (output / "model.pt").unlink(), 20),
        (lambda output: (output / "model.pt").write_bytes(b""), 22),
        (lambda output: (output / "model.pt").write_bytes(torch_zip()[:-1]), 22),
        (lambda output: (output / "model.pt").rename(output / "model.pt.tmp"), 20),
        (lambda output: ((output / "model.pt").unlink(), (output / "model.pt").symlink_to("x")), 22),
        (lambda output: ((output / "model.pt").unlink(), os.mkfifo(output / "model.pt")), 22),
    ],
)
def test_an_artifact_that_is_not_sound_refuses(output: Path, spoil: Callable[[Path], object], code: int) -> None:
    spoil(output)
    with pytest.raises(Refused) as refused:
        artifacts.collect(str(output), [MODEL])
    assert refused.value.code == code
    assert "model.pt" in refused.value.what


def test_links_under_a_wide_glob_are_left_out_and_told(output: Path) -> None:
    (output / "latest").symlink_to("checkpoints")
    (output / "etc").symlink_to("/etc")
    lines, skipped = artifacts.collect(str(output), [{"glob": "**", "role": "other", "loader": "none"}])
    assert {line["path"] for line in skipped} == {"latest", "etc"}
    assert all(not line["path"].startswith(("latest", "etc")) for line in lines)


def test_only_the_folders_that_globs_begin_with_are_walked(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (output / "samples").mkdir()
    walked = []
    real = os.scandir
    monkeypatch.setattr(artifacts.os, "scandir", lambda folder: walked.append(Path(folder)) or real(folder))
    lines, _skipped = artifacts.collect(str(output), [CHECKPOINTS, {**CHECKPOINTS, "glob": "checkpoints/**"}])
    assert len(lines) == 2
    assert walked == [output / "checkpoints"]


def test_a_folder_on_the_way_must_not_be_a_link(output: Path) -> None:
    (output / "elsewhere").symlink_to("/etc")
    with pytest.raises(Refused) as refused:
        artifacts.collect(str(output), [{"glob": "elsewhere/*", "role": "other", "loader": "none"}])
    assert refused.value.code == 22


@pytest.mark.parametrize("name", ["a\nb.pt", "a\\b.pt", "-rf.pt"])
def test_unsafe_names_refuse(output: Path, name: str) -> None:
    (output / name).write_bytes(torch_zip())
    with pytest.raises(Refused) as refused:
        artifacts.collect(str(output), [{"glob": "*.pt", "role": "other", "loader": "torch"}])
    assert refused.value.code == 22


def test_a_file_counts_for_every_glob_that_names_it(output: Path) -> None:
    wide = {"glob": "**/*.pt", "role": "other", "loader": "torch"}
    lines, _skipped = artifacts.collect(str(output), [wide, MODEL])
    assert len(lines) == len({line["path"] for line in lines}) == 3


# --- checkpoints --------------------------------------------------------------------------------------------------


def test_the_newest_sound_checkpoint_is_by_step_not_by_time(output: Path) -> None:
    os.utime(output / "checkpoints" / "step-0000000001.pt", (2e9, 2e9))
    found = artifacts.newest_sound_checkpoint(str(output), [])
    assert found is not None
    assert (found["step"], found["key"]) == (2, "checkpoints/step-0000000002.pt")
    (output / "checkpoints" / "step-0000000002.pt").write_bytes(b"PK\x03\x04")
    found = artifacts.newest_sound_checkpoint(str(output), [])
    assert found is not None
    assert found["step"] == 1


def test_a_sharded_checkpoint_is_whole_or_not_there(output: Path) -> None:
    declared = [{"glob": "checkpoints/step-*/**", "role": "checkpoint", "loader": "hf"}]
    for step in (10, 20):
        folder = output / "checkpoints" / f"step-{step}"
        folder.mkdir()
        (folder / "model-00001.safetensors").write_bytes(safetensors())
        (folder / "model-00002.safetensors").write_bytes(safetensors())
    found = artifacts.newest_sound_checkpoint(str(output), declared)
    assert found is not None
    assert (found["step"], len(found["artifacts"])) == (20, 2)
    (output / "checkpoints" / "step-20" / "model-00002.safetensors").write_bytes(safetensors()[:-1])
    found = artifacts.newest_sound_checkpoint(str(output), declared)
    assert found is not None
    assert (found["step"], len(found["artifacts"])) == (10, 2)


INDEX = {"weight_map": {"a": "model-00001.safetensors", "b": "model-00002.safetensors"}}


def sharded(output: Path, step: int) -> Path:
    return sharded_folder(output / "checkpoints" / f"step-{step}")


def sharded_folder(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "model.safetensors.index.json").write_text(json.dumps(INDEX))
    for number in (1, 2):
        (folder / f"model-0000{number}.safetensors").write_bytes(safetensors())
    return folder


def test_a_sharded_checkpoint_that_lacks_a_shard_loses_to_an_older_whole_one(output: Path) -> None:
    declared = [{"glob": "checkpoints/step-*/**", "role": "checkpoint", "loader": "hf"}]
    sharded(output, 10)
    (sharded(output, 20) / "model-00002.safetensors").unlink()
    found = artifacts.newest_sound_checkpoint(str(output), declared)
    assert found is not None
    assert (found["step"], len(found["artifacts"])) == (10, 3)
    lines, skipped = artifacts.collect(str(output), declared)
    assert {os.path.dirname(line["path"]) for line in lines} == {"checkpoints/step-10"}
    assert {line["path"] for line in skipped} == {
        "checkpoints/step-20/model-00001.safetensors",
        "checkpoints/step-20/model.safetensors.index.json",
    }
    assert all("model-00002.safetensors of 2 files missing" in line["why"] for line in skipped)


@pytest.mark.parametrize(
    ("name", "step", "key"),
    [
        ("ckpts/iter_0000500", 500, "ckpts/iter_0000500"),
        ("ckpts/global_step500", 500, "ckpts/global_step500"),
        ("last", None, "last/model.safetensors.index.json"),
        ("ckpts/last", None, "ckpts/last/model.safetensors.index.json"),
    ],
)
def test_a_sharded_checkpoint_is_one_whatever_its_folder_is_called(
    tmp_path: Path, name: str, step: int | None, key: str
) -> None:
    declared = [{"glob": f"{name.rpartition('/')[0] or 'last'}/**", "role": "checkpoint", "loader": "hf"}]
    folder = sharded_folder(tmp_path / name)
    (unit,) = artifacts.checkpoint_units(str(tmp_path), declared)
    assert (unit["key"], unit["step"], len(unit["files"])) == (key, step, 3)
    found = artifacts.newest_sound_checkpoint(str(tmp_path), declared)
    assert found is not None
    assert found["artifacts"] == artifacts.collect(str(tmp_path), declared)[0]
    (folder / "model-00002.safetensors").unlink()
    assert artifacts.newest_sound_checkpoint(str(tmp_path), declared) is None


def test_files_of_shards_that_name_their_steps_are_checkpoints_of_their_own(tmp_path: Path) -> None:
    declared = [{"glob": "*.safetensors", "role": "checkpoint", "loader": "hf"}]
    for step in (5, 6):
        (tmp_path / f"step-{step}.safetensors").write_bytes(safetensors())
    assert [unit["step"] for unit in artifacts.checkpoint_units(str(tmp_path), declared)] == [6, 5]


def test_a_final_model_in_shards_is_whole_or_refused(output: Path) -> None:
    declared = [{"glob": "checkpoints/step-10/*", "role": "other", "loader": "hf"}]
    folder = sharded(output, 10)
    assert len(artifacts.collect(str(output), declared)[0]) == 3
    (folder / "model-00001.safetensors").unlink()
    with pytest.raises(Refused) as refused:
        artifacts.collect(str(output), declared)
    assert refused.value.code == 22
    assert "incomplete" in refused.value.what


def test_a_glob_that_forgets_the_metadata_of_ranks_is_told_how_to_name_it(output: Path) -> None:
    (output / "dist").mkdir()
    (output / "dist" / "__0_0.distcp").write_bytes(b"x")
    with pytest.raises(Refused) as refused:
        artifacts.collect(str(output), [{"glob": "dist/*", "role": "other", "loader": "dcp"}])
    assert "no .metadata" in refused.value.what
    assert "'**'" in refused.value.what


def test_lines_of_json_are_sound_one_by_one(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text('{"step": 1}\n\n{"step": 2}\n')
    assert structure.check_structure(str(tmp_path / "m.jsonl"), "json") == ""
    (tmp_path / "m.jsonl").write_text('{"step": 1}\n{"st')
    assert "not JSON" in structure.check_structure(str(tmp_path / "m.jsonl"), "json")


@settings(max_examples=50)
@given(first=st.binary(max_size=300), second=st.binary(max_size=300))
def test_checksums_of_pieces_combine_to_that_of_the_whole(first: bytes, second: bytes) -> None:
    combined = zip_archive.combine(zlib.crc32(first), zlib.crc32(second), len(second))
    assert combined == zlib.crc32(first + second)


@pytest.mark.parametrize("flip", [0, 5_000_000, 20_000_000])
def test_a_large_part_is_read_in_pieces_by_several_threads(tmp_path: Path, flip: int) -> None:
    path = tmp_path / "m.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", pickle.dumps({}, 2))
        archive.writestr("a/data/0", bytes(range(256)) * 160_000)
    assert structure.check_structure(str(path), "torch", threads=3) == ""
    with open(path, "r+b") as stream:
        stream.seek(1000 + flip)
        stream.write(b"!")
    assert "a/data/0 has changed" in structure.check_structure(str(path), "torch", threads=3)


def test_without_checkpoints_there_is_none(tmp_path: Path) -> None:
    assert artifacts.newest_sound_checkpoint(str(tmp_path), []) is None
    assert artifacts.newest_sound_checkpoint(str(tmp_path / "absent"), []) is None


def test_what_the_callbacks_write_counts_and_a_folder_of_the_trainer_only_with_its_manifest(tmp_path: Path) -> None:
    """The Trainer gives its folder the last name at once; a snapshot must not take the one that is being written."""
    for step in (500, 1000):
        folder = tmp_path / "checkpoints" / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        (folder / "pytorch_model.bin").write_bytes(torch_zip(step))
    (tmp_path / "checkpoints" / "checkpoint-500" / "manifest.json").write_text("{}")
    found = artifacts.newest_sound_checkpoint(str(tmp_path), [])
    assert found is not None
    assert (found["step"], len(found["artifacts"])) == (500, 2)
    (tmp_path / "checkpoints" / "step-0000000700.ckpt").write_bytes(torch_zip(700))
    assert [unit["step"] for unit in artifacts.checkpoint_units(str(tmp_path), [])] == [700, 500]
    declared = [{"glob": "checkpoints/checkpoint-*/pytorch_model.bin", "role": "checkpoint", "loader": "torch"}]
    assert artifacts.checkpoint_units(str(tmp_path), declared)[0]["step"] == 1000, "the run spec vouches for it"


@pytest.mark.parametrize("glob", ["checkpoints/checkpoint-*/**", "hf/checkpoint-*/**", "**/checkpoint-*/*"])
def test_a_folder_without_weights_is_no_checkpoint_although_the_run_spec_names_it(tmp_path: Path, glob: str) -> None:
    declared = [{"glob": glob, "role": "checkpoint", "loader": "hf"}]
    place = tmp_path / ("hf" if glob.startswith("hf") else "checkpoints")
    for step in (500, 600):
        (place / f"checkpoint-{step}").mkdir(parents=True)
        (place / f"checkpoint-{step}" / "config.json").write_text("{}")
        (place / f"checkpoint-{step}" / "optimizer.pt").write_bytes(torch_zip(step))
        (place / f"checkpoint-{step}" / "training_args.bin").write_bytes(torch_zip(step))
    (place / "checkpoint-500" / "model.safetensors").write_bytes(safetensors())
    found = artifacts.newest_sound_checkpoint(str(tmp_path), declared)
    assert found is not None
    assert found["step"] == 500
    lines, skipped = artifacts.collect(str(tmp_path), declared)
    assert {os.path.basename(os.path.dirname(line["path"])) for line in lines} == {"checkpoint-500"}
    assert all("it has no weights" in line["why"] for line in skipped)
    assert len(skipped) == 3
    assert artifacts.newest_sound_checkpoint(str(tmp_path), declared, share=True)["step"] == 600, "another box's part"


@pytest.mark.parametrize("weights", ["global_step600/mp_rank_00_model_states.pt", "model.pt", "pytorch_model.bin"])
def test_weights_of_another_saver_below_a_trainers_folder_are_weights(tmp_path: Path, weights: str) -> None:
    declared = [{"glob": "checkpoints/checkpoint-*/**", "role": "checkpoint", "loader": "hf"}]
    path = tmp_path / "checkpoints" / "checkpoint-600" / weights
    path.parent.mkdir(parents=True)
    (tmp_path / "checkpoints" / "checkpoint-600" / "config.json").write_text("{}")
    (path.parent / "zero_pp_rank_0_optim_states.pt").write_bytes(torch_zip(1))
    assert artifacts.newest_sound_checkpoint(str(tmp_path), declared) is None
    path.write_bytes(torch_zip(1))
    found = artifacts.newest_sound_checkpoint(str(tmp_path), declared)
    assert found is not None
    assert len(found["artifacts"]) == 3


def test_a_declared_folder_asks_for_its_seal_once_the_callback_seals_the_ones_beside_it(tmp_path: Path) -> None:
    declared = [{"glob": "checkpoints/checkpoint-*/**", "role": "checkpoint", "loader": "hf"}]
    for step in (500, 600):
        folder = tmp_path / "checkpoints" / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(safetensors())
    assert [unit["step"] for unit in artifacts.checkpoint_units(str(tmp_path), declared)] == [600, 500]
    (tmp_path / "checkpoints" / "checkpoint-500" / "manifest.json").write_text("{}")
    assert [unit["step"] for unit in artifacts.checkpoint_units(str(tmp_path), declared)] == [500]
