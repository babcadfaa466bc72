# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Attacks on checkpoints with the manifest withheld: what each level finds by itself, and that nothing ever runs.

Damage that no level can know of, such as a flipped bit in plain numbers, is what hashes are for: said here by name.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import subprocess
import sys
import time
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import attack_fixtures as attacks
import numpy as np
import pytest
import torch
from ansible_collections.tenant.gpu.plugins.module_utils import load_checks, load_children
from ansible_collections.tenant.gpu.plugins.module_utils.box import dcp, sharded, structure
from attack_fixtures import Specimen

FORMATS = ("torch", "safetensors", "npz", "json", "hf", "dcp")
# A CRC covers every byte that has a meaning; in the others plain numbers lie bare.
CHECKSUMMED = ("torch", "npz", "dcp")
FLIPS = 60


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Specimen]:
    return attacks.specimens(tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Specimen]:
    return attacks.two_ranks(tmp_path_factory.mktemp("ranks"))


def check(specimen: Specimen, folder: Path, level: str = "load", **expect: Any) -> dict[str, dict[str, Any]]:
    specimen.written(folder / "c0")
    checks = load_checks.check_roster(str(folder), specimen.entries("c0"), level, expect)
    return {found["path"][len("c0/") :]: found for found in checks}


def failures(checks: dict[str, dict[str, Any]]) -> str:
    return "; ".join(found["error"] for found in checks.values() if not found["ok"])


def ours(specimen: Specimen) -> Any:
    """The metadata that this test wrote itself, as torch's own object."""
    return pickle.loads(specimen.files[".metadata"])  # noqa: S301


# --- damage -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
def test_a_whole_checkpoint_of_every_format_passes_every_level(
    whole: dict[str, Specimen], tmp_path: Path, name: str
) -> None:
    for level in load_checks.LEVELS:
        checks = check(whole[name], tmp_path, level)
        assert failures(checks) == ""
        assert set(checks) == set(whole[name].files)
        assert all(set(found) == set(load_checks._RESULT) for found in checks.values())


@pytest.mark.parametrize("name", FORMATS)
def test_a_cut_at_every_64th_is_found_by_structure(whole: dict[str, Specimen], tmp_path: Path, name: str) -> None:
    variants = list(attacks.truncated(whole[name]))
    assert len(variants) == 64 * len(whole[name].files)
    assert all(attacks.found(variants, tmp_path, "structure"))


@pytest.mark.parametrize("name", FORMATS)
def test_a_flipped_bit_that_changes_anything_is_found_where_there_is_a_checksum(
    whole: dict[str, Specimen], tmp_path: Path, name: str
) -> None:
    variants = list(attacks.flipped(whole[name], FLIPS))
    original = attacks.content(whole[name], whole[name].written(tmp_path / "whole"))
    found = attacks.found(variants, tmp_path, "structure")
    missed = [number for number, caught in enumerate(found) if not caught]
    changed = [number for number in missed if attacks.content(variants[number], tmp_path / f"v{number}") != original]
    if name in CHECKSUMMED:
        assert changed == [], "a level let a changed value pass"
        assert sum(found) > FLIPS / 2
    else:
        assert changed, "plain numbers carry no checksum: only the manifest can know"


def test_no_bit_of_a_packed_array_file_can_flip_and_change_a_number(tmp_path: Path) -> None:
    """Every bit of the file, one after the other."""
    path = tmp_path / "m.npz"
    np.savez_compressed(path, x=np.arange(20.0))
    whole, missed = path.read_bytes(), 0
    for bit in range(8 * len(whole)):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        if structure.check_structure(str(path), "npz") == "":
            missed += 1
            with np.load(path) as archive:
                assert archive["x"].tolist() == np.arange(20.0).tolist(), bit
    assert 0 < missed < 8 * len(whole) / 4, "what says nothing of the numbers may flip unnoticed"


@pytest.mark.parametrize("name", FORMATS)
def test_with_the_manifest_every_flipped_bit_is_found(whole: dict[str, Specimen], tmp_path: Path, name: str) -> None:
    assert all(attacks.found_by_manifest(whole[name], attacks.flipped(whole[name], FLIPS), tmp_path))
    assert not any(attacks.found_by_manifest(whole[name], [whole[name]], tmp_path))


@pytest.mark.parametrize("name", FORMATS)
def test_nan_in_one_tensor_is_found_by_expect_alone(whole: dict[str, Specimen], tmp_path: Path, name: str) -> None:
    bad = attacks.with_nan(whole[name], tmp_path)
    expect = {"metrics": ["loss"]} if name == "json" else {}
    assert attacks.found([bad], tmp_path / "load", "load") == [False]
    assert attacks.found([bad], tmp_path / "expect", "expect", **expect) == [True]
    assert attacks.found([whole[name]], tmp_path / "whole", "expect", **expect) == [False]


def test_an_old_file_under_a_new_name_is_found_by_load_where_it_says_its_step(
    whole: dict[str, Specimen], tmp_path: Path
) -> None:
    older = attacks.specimens(tmp_path / "older", step=300)
    replaced = attacks.stale(whole["torch"], older["torch"])
    assert len(replaced.files["step-0000000400.pt"]) == len(whole["torch"].files["step-0000000400.pt"])
    assert attacks.found([replaced], tmp_path / "structure", "structure") == [False]
    assert "is of step 300, its name says 400" in failures(check(replaced, tmp_path))
    for name in FORMATS:
        replaced = attacks.stale(whole[name], older[name])
        assert attacks.found_by_manifest(whole[name], [replaced], tmp_path / name) == [True]


# --- sharded checkpoints ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", load_checks.LEVELS)
def test_a_missing_shard_is_named(
    whole: dict[str, Specimen], ranks: dict[int, Specimen], tmp_path: Path, level: str
) -> None:
    for number, (specimen, gone, word) in enumerate(
        [
            (whole["hf"], "model-00002-of-00002.safetensors", "model-00002-of-00002.safetensors of 2 files missing"),
            (ranks[100], "__1_0.distcp", "__1_0.distcp (rank 1) of 2 files missing"),
            (ranks[100], ".metadata", "no .metadata lies beside it"),
        ]
    ):
        assert failures(check(specimen, tmp_path / "whole" / str(number), level)) == ""
        broken = failures(check(specimen.without(gone), tmp_path / "broken" / str(number), level))
        assert "incomplete" in broken
        assert word in broken


def test_shards_without_an_index_say_by_their_numbers_that_one_is_missing(
    whole: dict[str, Specimen], tmp_path: Path
) -> None:
    lone = whole["hf"].without("model.safetensors.index.json")
    assert failures(check(lone, tmp_path / "both", "structure")) == ""
    assert "model-00001-of-00002.safetensors" in failures(
        check(lone.without("model-00001-of-00002.safetensors"), tmp_path / "one", "structure")
    )


def test_a_shard_without_its_tensors_is_found_through_the_index(whole: dict[str, Specimen], tmp_path: Path) -> None:
    first, second = [name for name in whole["hf"].files if name.endswith(".safetensors")]
    swapped = whole["hf"].with_file(second, whole["hf"].files[first])
    assert "that the index promises" in failures(check(swapped, tmp_path, "structure"))


def test_a_ranks_file_of_another_step_is_found_by_size_or_by_the_steps_inside(
    ranks: dict[int, Specimen], tmp_path: Path
) -> None:
    mixed = ranks[100].with_file("__1_0.distcp", ranks[200].files["__1_0.distcp"])
    assert attacks.found([mixed], tmp_path / "load", "load") == [False], "same layout, nothing to tell by"
    assert "mixes files of different steps" in failures(check(mixed, tmp_path / "expect", "expect"))
    longer = ranks[100].with_file("__1_0.distcp", ranks[200].files["__0_0.distcp"])
    assert "from another save" in failures(check(longer, tmp_path / "longer", "structure"))
    assert attacks.found_by_manifest(ranks[100], [mixed], tmp_path) == [True]


def test_a_distributed_checkpoint_keeps_promises_as_one(ranks: dict[int, Specimen], tmp_path: Path) -> None:
    promise = {
        "shapes": {"model.a": [8, 4]},
        "min_step": 100,
        "resume_state": True,
        "required_keys": ["model", "optim"],
    }
    checks = check(ranks[100], tmp_path, "expect", **promise)
    assert failures(checks) == ""
    head = checks[".metadata"]
    assert (head["step"], head["finite"], head["tensors"]) == (100, True, 10)
    for broken, word in (
        ({"shapes": {"model.a": [8, 5]}}, "[8, 4]"),
        ({"shapes": {"model.z": [1]}}, "lacks the tensor model.z"),
        ({"min_step": 101}, "step 100"),
        ({"required_keys": ["ema"]}, "ema"),
        ({"min_tensors": 11}, "10 tensors"),
    ):
        checks = check(ranks[100], tmp_path, "expect", **broken)
        assert [name for name, found in checks.items() if not found["ok"]] == [".metadata"]
        assert word in checks[".metadata"]["error"]


def test_a_sharded_checkpoint_whose_parts_came_from_two_boxes_is_checked_as_one(
    ranks: dict[int, Specimen], tmp_path: Path
) -> None:
    parts = {
        "box1": ranks[100].without("__1_0.distcp"),
        "box2": ranks[100].without(".metadata").without("__0_0.distcp"),
    }
    files = []
    for box, part in parts.items():
        part.written(tmp_path / box / "c0")
        files += [dict(entry, root=str(tmp_path / box)) for entry in part.entries("c0")]
    checks = load_checks.check_roster(str(tmp_path), files, "load")
    assert [found["error"] for found in checks] == ["", "", ""]
    assert not all(found["ok"] for found in load_checks.check_roster(str(tmp_path), files[:2], "load"))


def test_the_trainers_own_folder_of_hugging_face_is_read_as_a_whole(tmp_path: Path) -> None:
    folder = tmp_path / "c0" / "checkpoint-500"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(attacks.save(attacks.weights(500)))
    (folder / "trainer_state.json").write_text('{"global_step": 500}')
    torch.save({"state": {}, "param_groups": []}, folder / "optimizer.pt")
    torch.save({"numpy": np.random.get_state(), "cpu": torch.get_rng_state()}, folder / "rng_state.pth")
    torch.save(Settings(), folder / "training_args.bin")
    files = [{"path": str(path.relative_to(tmp_path)), "loader": "hf"} for path in sorted(folder.iterdir())]
    promise = {"min_step": 500, "resume_state": True, "min_tensors": 3, "required_keys": ["head.weight"]}
    checks = {
        os.path.basename(found["path"]): found
        for found in load_checks.check_roster(str(tmp_path), files, "expect", promise)
    }
    assert failures(checks) == ""
    assert (checks["model.safetensors"]["step"], checks["model.safetensors"]["finite"]) == (500, True)
    assert checks["training_args.bin"]["level"] == "structure", "nobody needs its code to have the weights"
    without = [file for file in files if not file["path"].endswith("optimizer.pt")]
    assert "resumed" in str(load_checks.check_roster(str(tmp_path), without, "expect", promise))


# --- code in files ----------------------------------------------------------------------------------------------


class Settings:
    """Something that only its own code can load."""


class Malice:
    """Runs a command when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.target}",)


def test_law_8_a_command_in_any_pickle_is_refused_at_every_level_and_never_runs(
    whole: dict[str, Specimen], ranks: dict[int, Specimen], tmp_path: Path
) -> None:
    planted = tmp_path / "it-ran"
    loaded = io.BytesIO()
    torch.save({"model": torch.ones(2), "x": Malice(planted)}, loaded)
    metadata = ours(ranks[100])
    metadata.planner_data = Malice(planted)
    hostile = [
        Specimen("torch", "torch", {"m.pt": loaded.getvalue()}),
        Specimen("hf", "hf", {"pytorch_model.bin": loaded.getvalue()}),
        ranks[100].with_file(".metadata", pickle.dumps(metadata)),
    ]
    for level in load_checks.LEVELS:
        for number, specimen in enumerate(hostile):
            told = failures(check(specimen, tmp_path / level / str(number), level))
            assert "system" in told
            assert "refused" in told
    assert not planted.exists()
    with pytest.raises(AttributeError, match="items"):
        torch.distributed.checkpoint.FileSystemReader(
            tmp_path / "load" / "2" / "c0"
        ).read_metadata().planner_data.items()
    assert planted.exists(), "torch itself runs it"


def test_law_8_an_item_of_a_rank_with_a_command_is_refused(tmp_path: Path, whole: dict[str, Specimen]) -> None:
    planted = tmp_path / "it-ran"
    from torch.distributed.checkpoint import FileSystemWriter
    from torch.distributed.checkpoint import save as save_distributed

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        save_distributed({"x": Malice(planted)}, storage_writer=FileSystemWriter(tmp_path / "out"), no_dist=True)
    hostile = Specimen("dcp", "dcp", {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()})
    for level in ("structure", "load"):
        assert "refused" in failures(check(hostile, tmp_path / level, level))
    assert not planted.exists()


def test_all_names_that_a_pickle_needs_are_told(tmp_path: Path) -> None:
    torch.save({"a": Fraction(1, 2), "b": Settings()}, tmp_path / "m.pt")
    (found,) = load_checks.check_roster(str(tmp_path), [{"path": "m.pt", "loader": "torch"}])
    assert "fractions.Fraction" in found["error"]
    assert "test_load_attacks.Settings" in found["error"]
    assert "expect.globals" in found["error"]


def test_a_name_that_the_user_lists_is_allowed_and_nothing_else(tmp_path: Path) -> None:
    torch.save({"a": Fraction(1, 2), "w": torch.ones(2)}, tmp_path / "m.pt")
    files = [{"path": "m.pt", "loader": "torch"}]
    for level in ("load", "expect"):
        (found,) = load_checks.check_roster(str(tmp_path), files, level, {"globals": ["fractions.Fraction"]})
        assert (found["ok"], found["tensors"]) == (True, 1), found["error"]
    (found,) = load_checks.check_roster(str(tmp_path), files, "load", {"globals": ["decimal.Decimal"]})
    assert "fractions.Fraction" in found["error"]
    (found,) = load_checks.check_roster(str(tmp_path), files, "load", {"globals": ["no.such.thing"]})
    assert "cannot be imported here" in found["error"]


@pytest.mark.parametrize(
    "name",
    ["os.system", "posix.system", "subprocess.Popen", "builtins.eval", "builtins.getattr", "importlib.import_module"]
    + [
        "functools.partial",
        "operator.attrgetter",
        "pickle.loads",
        "shutil.rmtree",
        "eval",
        "sys.exit",
        "types.CodeType",
    ],
)
def test_law_8_no_list_allows_a_name_that_runs_commands(name: str) -> None:
    with pytest.raises(load_checks.BadExpectation, match="refused even when listed"):
        load_checks.validate_request("load", {"globals": ["collections.Counter", name]})


def test_law_8_a_listed_name_is_never_imported_from_what_came_from_the_box(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = tmp_path / "it-ran"
    (tmp_path / "helpers.py").write_text(f"open({str(planted)!r}, 'w')\nclass Config: pass\n")
    torch.save({"w": torch.ones(1)}, tmp_path / "m.pt")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", str(tmp_path), *sys.path])
    files = [{"path": "m.pt", "loader": "torch"}]
    (found,) = load_checks.check_roster(str(tmp_path), files, "load", {"globals": ["helpers.Config"]})
    assert "cannot be imported here" in found["error"]
    assert not planted.exists()


# --- containers built to harm -------------------------------------------------------------------------------------


def zipped(parts: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def overlapping() -> bytes:
    """Two directory entries for the bytes of one part, as in bombs that unpack one kernel many times."""
    data = bytearray(zipped({"a/data.pkl": pickle.dumps({}, 2), "a/data/0": b"x" * 64, "a/data/1": b"x" * 64}))
    last = data.rindex(b"PK\x01\x02")
    first = data.rindex(b"PK\x01\x02", 0, last)
    data[last + 42 : last + 46] = data[first + 42 : first + 46]
    return bytes(data)


def array(header: str, data: bytes = b"") -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + data


def tensors(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


PLAIN = {"a/data.pkl": pickle.dumps({"step": 1}, 2), "a/data/0": bytes(64)}
HOSTILE: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "overlapping parts": ("torch", overlapping, "overlap"),
    "bytes before the archive": ("torch", lambda: b"#!/bin/sh\n" + zipped(PLAIN), "directory"),
    "bytes after the archive": ("torch", lambda: zipped(PLAIN) + b"\0", "directory"),
    "compressed parts": ("torch", lambda: zipped(PLAIN, zipfile.ZIP_DEFLATED), "compressed"),
    "a pickle cut short": ("torch", lambda: zipped({"a/data.pkl": pickle.dumps([1], 2)[:-1]}), "pickle"),
    "an extension code": ("torch", lambda: zipped({"a/data.pkl": b"\x80\x02\x82\x01."}), "extension"),
    "a storage that is not there": (
        "torch",
        lambda: zipped(
            {"a/data.pkl": b"\x80\x02(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\x007X\3\0\0\0cpuK\4tQ."}
        ),
        "bytes are not in it",
    ),
    "a storage that is too short": (
        "torch",
        lambda: zipped(
            {
                "a/data.pkl": b"\x80\x02(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\x000X\3\0\0\0cpuK\x63tQ.",
                "a/data/0": bytes(16),
            }
        ),
        "has 16 bytes, its pickle says 396",
    ),
    "objects in an array": ("npz", lambda: zipped({"x.npy": object_array()}), "object array"),
    "objects in a field": (
        "npz",
        lambda: zipped({"x.npy": array("{'descr': [('a', '|O')], 'fortran_order': False, 'shape': (1,), }\n")}),
        "object array",
    ),
    "a shape that lies": (
        "npz",
        lambda: zipped({"x.npy": array("{'descr': '<f8', 'fortran_order': False, 'shape': (99999999, 9999), }\n")}),
        "its shape needs",
    ),
    "a header that is code": ("npz", lambda: zipped({"x.npy": array("__import__('os').system('x')")}), "malformed"),
    "overlapping tensors": (
        "safetensors",
        lambda: tensors({n: {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]} for n in "ab"}, bytes(4)),
        "overlap",
    ),
    "a tensor named twice": ("safetensors", lambda: tensors(b'{"a": {}, "a": {}}'), "twice"),
    "a huge header": ("safetensors", lambda: struct.pack("<Q", 1 << 60) + b"{}", "header says"),
    "a negative shape": (
        "safetensors",
        lambda: tensors({"a": {"dtype": "U8", "shape": [-2, -2], "data_offsets": [0, 4]}}, bytes(4)),
        "malformed",
    ),
    "a deep header": ("safetensors", lambda: tensors(b'{"a":' * 100_000), "not JSON"),
    "deep JSON": ("json", lambda: b"[" * 500_000, "not JSON"),
}


def object_array() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([OrderedDict()], dtype=object), allow_pickle=True)
    return buffer.getvalue()


@pytest.mark.parametrize("attack", HOSTILE)
def test_a_container_built_to_harm_is_refused_by_structure_and_named(tmp_path: Path, attack: str) -> None:
    loader, build, word = HOSTILE[attack]
    (tmp_path / "m").write_bytes(build())
    assert word in structure.check_structure(str(tmp_path / "m"), loader)


def test_a_bomb_in_an_array_file_costs_no_memory(tmp_path: Path) -> None:
    """512 MiB of zeros in 2 MB: unpacked in pieces, and as long as the header of the array says."""
    size = 2**29
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({size // 4},), }}\n"
    with (
        zipfile.ZipFile(tmp_path / "m.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("x.npy", "w", force_zip64=True) as part,
    ):
        part.write(array(header))
        for _number in range(size // 2**24):
            part.write(bytes(2**24))
    script = (
        "import resource, sys\n"
        "from ansible_collections.tenant.gpu.plugins.module_utils.box import structure\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"assert structure.check_structure({str(tmp_path / 'm.npz')!r}, 'npz') == ''\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    collections = str(Path(__file__).resolve().parents[3] / "collections")
    grown = subprocess.run(
        [sys.executable, "-c", script], env={"PYTHONPATH": collections}, capture_output=True, text=True, check=True
    )
    assert int(grown.stdout) < 64 * 1024


def test_a_file_that_asks_for_more_memory_than_it_can_need_fails_alone(tmp_path: Path) -> None:
    if not Path("/proc/self/statm").exists():
        pytest.skip("only Linux limits the memory of one process so")
    (answer,) = load_children.each_in_children(
        lambda _number: load_children.limit_memory(1000) or {"bytes": len(bytearray(6 * 2**30))}, [[0]], 1
    )
    assert "crashed" in answer[1]


def test_metadata_that_names_a_file_elsewhere_is_refused(ranks: dict[int, Specimen], tmp_path: Path) -> None:
    for path in ("../../etc/passwd", "/etc/passwd", ""):
        metadata = ours(ranks[100])
        for info in metadata.storage_data.values():
            info.relative_path = path
        hostile = ranks[100].with_file(".metadata", pickle.dumps(metadata))
        assert "damaged" in failures(check(hostile, tmp_path, "structure"))


def test_metadata_that_forgets_a_part_of_a_tensor_is_incomplete(ranks: dict[int, Specimen], tmp_path: Path) -> None:
    metadata = ours(ranks[100])
    metadata.state_dict_metadata["model.a"].chunks.pop()
    told = failures(check(ranks[100].with_file(".metadata", pickle.dumps(metadata)), tmp_path, "structure"))
    assert "'model.a' is incomplete: its parts are 16 of 32 numbers" in told
    metadata = ours(ranks[100])
    del metadata.storage_data[next(iter(metadata.storage_data))]
    told = failures(check(ranks[100].with_file(".metadata", pickle.dumps(metadata)), tmp_path, "structure"))
    assert "does not say where 1 of its" in told


def test_every_name_that_torch_writes_into_metadata_is_known(ranks: dict[int, Specimen], whole: Any) -> None:
    from ansible_collections.tenant.gpu.plugins.module_utils.box import inert_pickle

    for specimen in (ranks[100], whole["dcp"]):
        assert inert_pickle.read(specimen.files[".metadata"]).reached <= dcp.KNOWN_NAMES


def _as_python_3_11_2_writes(member: Any, _protocol: int) -> Any:
    return getattr, (type(member), member.name)


def test_metadata_written_by_an_early_python_3_11_is_read(
    ranks: dict[int, Specimen], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Debian 12 has such a Python: it writes members of an enum as a call of getattr."""
    from torch.distributed.checkpoint.metadata import _MEM_FORMAT_ENCODING

    monkeypatch.setattr(_MEM_FORMAT_ENCODING, "__reduce_ex__", _as_python_3_11_2_writes)
    written = pickle.dumps(ours(ranks[100]))
    assert b"getattr" in written
    assert failures(check(ranks[100].with_file(".metadata", written), tmp_path, "load")) == ""


class _Deletes:
    def __reduce__(self) -> Any:
        return getattr, (Path, "unlink")


class _Reaches:
    def __reduce__(self) -> Any:
        return getattr, ("a text", "join")


@pytest.mark.parametrize(("hostile", "named"), [(_Deletes(), "Path.unlink"), (_Reaches(), "builtins.getattr")])
def test_getattr_for_anything_else_is_refused(
    ranks: dict[int, Specimen], tmp_path: Path, hostile: Any, named: str
) -> None:
    metadata = ours(ranks[100])
    metadata.planner_data = hostile
    told = failures(check(ranks[100].with_file(".metadata", pickle.dumps(metadata)), tmp_path, "structure"))
    assert "it needs code to load" in told
    assert named in told


# --- in parallel --------------------------------------------------------------------------------------------------


def test_as_many_files_are_looked_at_at_once_as_there_are_cores(tmp_path: Path) -> None:
    """Each of two children waits for a word of the other: one after the other they would wait for ever."""
    pipes = [os.pipe(), os.pipe()]

    def work(number: int) -> dict[str, Any]:
        os.write(pipes[number][1], b"x")
        return {"heard": os.read(pipes[1 - number][0], 1).decode()}

    answers = dict(load_children.each_in_children(work, [[0], [1]], 2, seconds=60))
    assert answers == {0: {"heard": "x"}, 1: {"heard": "x"}}


def test_what_a_killed_child_had_still_to_do_is_done_by_another() -> None:
    def work(number: int) -> dict[str, Any]:
        if number == 1:
            os.kill(os.getpid(), 9)
        return {"number": number}

    answers = dict(load_children.each_in_children(work, [[0, 1, 2, 3]], 2))
    assert answers.pop(1) == {"crashed": "signal 9"}
    assert answers == {number: {"number": number} for number in (0, 2, 3)}


def test_a_file_that_never_ends_is_given_up() -> None:
    def work(number: int) -> dict[str, Any]:
        while number == 0:
            time.sleep(60)
        return {}

    answers = dict(load_children.each_in_children(work, [[0, 1]], 1, seconds=1))
    assert answers == {0: {"crashed": "signal 14"}, 1: {}}


def test_folders_are_told_apart_on_the_box_as_at_home(ranks: dict[int, Specimen], tmp_path: Path) -> None:
    folder = ranks[100].written(tmp_path)
    names = list(ranks[100].files)
    assert sharded.folder_problem(str(folder), names) == ""
    assert "rank 1" in sharded.folder_problem(str(folder), [name for name in names if name != "__1_0.distcp"])
