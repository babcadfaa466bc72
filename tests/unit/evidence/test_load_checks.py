# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Files from a stranger: whole ones load, damaged ones are named, and nothing in them runs."""

from __future__ import annotations

import json
import os
import pickle
import signal
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ansible_collections.tenant.gpu.plugins.module_utils import load_checks
from safetensors.torch import save_file

STEP = "step-0000000400.pt"


def check(root: Path, path: str, loader: str, level: str = "load", **expect: Any) -> dict[str, Any]:
    (found,) = load_checks.check_roster(str(root), [{"path": path, "loader": loader}], level, expect)
    return found


def resume_state(step: int = 400) -> dict[str, Any]:
    """What a trainer saves, made by hand: torch's optimizers import a compiler that dislikes Ansible beside it."""
    weights = {"weight": torch.ones(4, 8), "bias": torch.zeros(4)}
    moments = {
        n: {"step": torch.tensor(1.0), "exp_avg": value.clone(), "exp_avg_sq": value.square()}
        for n, value in enumerate(weights.values())
    }
    return {
        "step": step,
        "model": weights,
        "optimizer": {"state": moments, "param_groups": [{"lr": 0.001, "params": [0, 1]}]},
        "rng": {"torch": torch.get_rng_state(), "numpy": np.random.get_state(), "loss": np.float64(0.5)},
    }


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.save(resume_state(), tmp_path / STEP)
    return tmp_path / STEP


@pytest.mark.parametrize("level", load_checks.LEVELS)
def test_a_whole_checkpoint_passes_every_level(checkpoint: Path, level: str) -> None:
    found = check(checkpoint.parent, STEP, "torch", level)
    assert found["ok"], found["error"]
    assert found["step"] == 400
    assert found["level"] == level
    if level != "structure":
        assert found["tensors"] == 9
    assert found["finite"] is (True if level == "expect" else None)
    assert set(found) == {"path", "level", "loader", "tensors", "step", "finite", "ok", "error"}


@pytest.mark.parametrize("level", load_checks.LEVELS)
@pytest.mark.parametrize("keep", [0, 1, 100, -1, -30])
def test_a_truncated_checkpoint_is_caught_at_every_level(checkpoint: Path, level: str, keep: int) -> None:
    checkpoint.write_bytes(checkpoint.read_bytes()[:keep])
    found = check(checkpoint.parent, STEP, "torch", level)
    assert not found["ok"]
    assert found["error"]


def test_a_flipped_bit_in_a_tensor_is_caught_by_structure(checkpoint: Path) -> None:
    data = bytearray(checkpoint.read_bytes())
    with zipfile.ZipFile(checkpoint) as archive:
        info = next(info for info in archive.infolist() if "/data/" in info.filename)
    name_length, extra_length = struct.unpack("<HH", data[info.header_offset + 26 : info.header_offset + 30])
    data[info.header_offset + 30 + name_length + extra_length] ^= 0x10
    checkpoint.write_bytes(data)
    found = check(checkpoint.parent, STEP, "torch", "structure")
    assert not found["ok"]
    assert info.filename in found["error"]


class Malice:
    """Runs a command when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.target}",)


def test_law_8_a_malicious_checkpoint_is_refused_and_does_not_run(tmp_path: Path) -> None:
    planted = tmp_path / "it-ran"
    torch.save({"model": torch.ones(2), "x": Malice(planted)}, tmp_path / "m.pt")
    found = check(tmp_path, "m.pt", "torch")
    assert not found["ok"]
    assert "system" in found["error"]
    assert "refused" in found["error"]
    assert not planted.exists()
    torch.load(tmp_path / "m.pt", weights_only=False)
    assert planted.exists(), "the attack itself is real"


def test_law_8_a_malicious_legacy_pickle_is_refused_and_does_not_run(tmp_path: Path) -> None:
    planted = tmp_path / "it-ran"
    (tmp_path / "m.pt").write_bytes(pickle.dumps(Malice(planted)))
    for level in load_checks.LEVELS:
        assert not check(tmp_path, "m.pt", "torch", level)["ok"]
    assert not planted.exists()


def test_law_8_a_malicious_npz_is_refused_and_does_not_run(tmp_path: Path) -> None:
    planted = tmp_path / "it-ran"
    np.savez(tmp_path / "m.npz", x=np.array([Malice(planted)], dtype=object))
    found = check(tmp_path, "m.npz", "npz")
    assert not found["ok"]
    assert "object array" in found["error"]
    assert not planted.exists()


def test_law_8_a_compressed_checkpoint_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb/data.pkl", b"\0" * 1_000_000)
    assert "compressed" in check(tmp_path, "bomb.pt", "torch", "structure")["error"]


def test_a_file_that_kills_its_loader_fails_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.json").write_text("{}")
    (tmp_path / "b.json").write_text("{}")

    def die(path: str, level: str, expect: Any) -> dict[str, Any]:
        if path.endswith("a.json"):
            os.kill(os.getpid(), signal.SIGKILL)
        return {}

    monkeypatch.setitem(load_checks.LOADERS_BEYOND, "json", die)
    files = [{"path": "a.json", "loader": "json"}, {"path": "b.json", "loader": "json"}]
    first, second = load_checks.check_roster(str(tmp_path), files)
    assert not first["ok"]
    assert "signal 9" in first["error"]
    assert second["ok"]


def test_the_child_undoes_what_ansible_patched_into_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ansible replaces sys.intern by an object, which parts of torch refuse to be imported beside."""
    (tmp_path / "a.json").write_text("{}")
    original = getattr(sys.intern, "unpatched_implementation", sys.intern)

    class Patched:
        unpatched_implementation = staticmethod(original)

        def __call__(self, text: str) -> str:
            return original(text)

    def look(path: str, level: str, expect: Any) -> dict[str, Any]:
        return {"tensors": int(sys.intern is original)}

    monkeypatch.setattr(sys, "intern", Patched())
    monkeypatch.setitem(load_checks.LOADERS_BEYOND, "json", look)
    assert check(tmp_path, "a.json", "json")["tensors"] == 1
    assert sys.intern is not original, "this process keeps Ansible's"


def test_nothing_of_the_torch_world_is_imported_into_this_process(tmp_path: Path) -> None:
    """The parent stays light and safe from native parsers: a child does the loading."""
    script = (
        "import sys\n"
        "from ansible_collections.tenant.gpu.plugins.module_utils import load_checks\n"
        f"print(load_checks.check_roster({str(tmp_path)!r}, [{{'path': 'm.pt', 'loader': 'torch'}}])[0]['ok'])\n"
        "print('torch' in sys.modules)\n"
    )
    torch.save({"a": torch.ones(1)}, tmp_path / "m.pt")
    collections = str(Path(__file__).resolve().parents[3] / "collections")
    environment = dict(os.environ, PYTHONPATH=collections)
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["True", "False"], done.stderr


def test_without_torch_structure_still_works_and_load_says_what_to_install(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert check(checkpoint.parent, STEP, "torch", "structure")["ok"]
    found = check(checkpoint.parent, STEP, "torch", "load")
    assert not found["ok"]
    assert "pip install 'gpu-tenant[torch]'" in found["error"]


# --- expect ---


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_expect_finds_a_number_that_is_not_finite(tmp_path: Path, bad: float, dtype: torch.dtype) -> None:
    weights = torch.zeros(1000, dtype=dtype)
    weights[777] = bad
    torch.save({"model": {"w": weights}}, tmp_path / "m.pt")
    assert check(tmp_path, "m.pt", "torch", "load")["ok"]
    assert "NaN or infinity" in check(tmp_path, "m.pt", "torch", "expect")["error"]
    assert check(tmp_path, "m.pt", "torch", "expect", finite=False)["ok"]


@pytest.mark.parametrize(
    ("expect", "word"),
    [
        ({"min_tensors": 10}, "9 tensors"),
        ({"required_keys": ["model", "ema"]}, "ema"),
        ({"min_step": 401}, "step 400"),
    ],
)
def test_expect_names_the_broken_promise(checkpoint: Path, expect: dict[str, Any], word: str) -> None:
    found = check(checkpoint.parent, STEP, "torch", "expect", **expect)
    assert not found["ok"]
    assert word in found["error"]


def test_expect_passes_what_was_promised(checkpoint: Path) -> None:
    expect = {"min_tensors": 9, "required_keys": ["model", "optimizer"], "min_step": 400, "resume_state": True}
    assert check(checkpoint.parent, STEP, "torch", "expect", **expect)["ok"]


def test_expect_wants_optimizer_and_random_state_of_a_resume_anchor(tmp_path: Path) -> None:
    for missing in ("optimizer", "rng"):
        torch.save({key: value for key, value in resume_state().items() if key != missing}, tmp_path / STEP)
        assert "resumed" in check(tmp_path, STEP, "torch", "expect", resume_state=True)["error"]


def test_the_checkpoints_of_our_helper_hold_a_resume_state_below_objects(tmp_path: Path) -> None:
    state = resume_state()
    objects = {"model": state["model"], "optimizer": state["optimizer"]}
    torch.save({"step": 400, "objects": objects, "rng": state["rng"]}, tmp_path / STEP)
    shapes = {"objects.model.weight": [4, 8]}
    found = check(tmp_path, STEP, "torch", "expect", resume_state=True, shapes=shapes)
    assert found["ok"], found["error"]


@pytest.mark.parametrize(
    ("shapes", "word"),
    [
        ({"model.weight": [4, 8], "model.bias": [4]}, ""),
        ({"model.weight": [8, 4]}, "has the tensor model.weight in shape [4, 8], [8, 4] was expected"),
        ({"model.head": [1]}, "lacks the tensor model.head"),
        ({"optimizer.state.0.step": []}, ""),
    ],
)
def test_expect_compares_shapes(checkpoint: Path, shapes: dict[str, Any], word: str) -> None:
    found = check(checkpoint.parent, STEP, "torch", "expect", shapes=shapes)
    assert found["ok"] == (not word)
    assert word in found["error"]


@pytest.mark.parametrize("shapes", [["model.weight"], {"w": 4}, {"w": ["x"]}, {"w": [-1]}])
def test_a_shape_that_is_none_is_refused_before_anything_is_read(shapes: Any) -> None:
    with pytest.raises(load_checks.BadExpectation, match="shapes"):
        load_checks.validate_request("expect", {"shapes": shapes})


def strange_tensors() -> dict[str, torch.Tensor]:
    """Layouts in which the numbers do not lie one after the other."""
    plain = torch.arange(24.0).reshape(4, 6)
    return {
        "transposed": plain.t(),
        "every second": plain[:, ::2],
        "expanded": torch.ones(1).expand(1000, 1000),
        "windows": torch.arange(10.0).as_strided((7, 4), (1, 1)),
        "sparse": torch.eye(5).to_sparse(),
        "rows": torch.eye(5).to_sparse_csr(),
        "complex": torch.view_as_complex(torch.ones(3, 2)),
        "small floats": torch.ones(5).to(torch.float8_e4m3fn),
        "empty": torch.empty(0, 3),
        "one": torch.tensor(1.0),
        "whole numbers": torch.arange(3),
    }


LAYOUTS = ("transposed", "every second", "expanded", "windows", "sparse", "rows", "complex", "small floats", "one")


@pytest.mark.filterwarnings("ignore:Sparse CSR:UserWarning")
@pytest.mark.parametrize("name", [*LAYOUTS, "empty", "whole numbers"])
def test_every_layout_is_looked_through(tmp_path: Path, name: str) -> None:
    good = strange_tensors()[name]
    torch.save({"w": good}, tmp_path / "m.pt")
    found = check(tmp_path, "m.pt", "torch", "expect")
    assert found["ok"], found["error"]
    if name in ("empty", "whole numbers"):
        return
    bad = good.clone()
    values = bad.values() if name == "rows" else bad._values() if name == "sparse" else bad
    last = tuple(size - 1 for size in values.shape)
    values[last] = float("nan")
    torch.save({"w": bad}, tmp_path / "m.pt")
    assert "NaN or infinity in 1 of 1 tensors (w)" in check(tmp_path, "m.pt", "torch", "expect")["error"]


def test_a_tensor_that_shows_its_numbers_for_ever_is_looked_through_once(tmp_path: Path) -> None:
    endless = torch.ones(2_000_000).as_strided((1_000_000, 1_000_000), (1, 1))
    torch.save({"w": endless}, tmp_path / "m.pt")
    assert check(tmp_path, "m.pt", "torch", "expect")["ok"]


def test_expect_binds_the_newest_checkpoint_of_each_cell(tmp_path: Path) -> None:
    for cell, steps in (("c0", (100, 400)), ("c1", (100, 200))):
        for step in steps:
            path = tmp_path / cell / f"step-{step:010d}.pt"
            path.parent.mkdir(exist_ok=True)
            torch.save({"step": step, "model": torch.ones(1)}, path)
    files = [{"path": str(p.relative_to(tmp_path)), "loader": "torch"} for p in sorted(tmp_path.rglob("*.pt"))]
    checks = load_checks.check_roster(str(tmp_path), files, "expect", {"min_step": 400})
    assert [found["path"] for found in checks if not found["ok"]] == ["c1/step-0000000200.pt"]


# --- other formats ---


def test_safetensors_is_checked_from_header_to_tensor(tmp_path: Path) -> None:
    save_file({"w": torch.ones(4, 4), "b": torch.zeros(4, dtype=torch.bfloat16)}, tmp_path / "m.safetensors")
    for level in load_checks.LEVELS:
        found = check(tmp_path, "m.safetensors", "safetensors", level)
        assert found["ok"], found["error"]
    assert found["tensors"] == 2
    data = (tmp_path / "m.safetensors").read_bytes()
    (tmp_path / "m.safetensors").write_bytes(data[:-1])
    assert not check(tmp_path, "m.safetensors", "safetensors", "structure")["ok"]
    save_file({"w": torch.tensor([float("nan")])}, tmp_path / "n.safetensors")
    assert "NaN" in check(tmp_path, "n.safetensors", "safetensors", "expect")["error"]


def test_npz_is_checked_from_crc_to_array(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "m.npz", x=np.arange(10.0), y=np.arange(3))
    for level in load_checks.LEVELS:
        assert check(tmp_path, "m.npz", "npz", level)["ok"]
    np.savez(tmp_path / "n.npz", x=np.array([1.0, np.nan]))
    assert "NaN" in check(tmp_path, "n.npz", "npz", "expect")["error"]


@pytest.mark.parametrize(
    ("text", "metrics", "word"),
    [
        ('{"loss": 0.5, "val": {"acc": 0.9}}', ["loss", "val.acc"], ""),
        ('{"loss": 0.5}', ["loss", "acc"], "lacks the metrics acc"),
        ('{"loss": NaN}', ["loss"], "not finite"),
        ('{"loss": "0.5"}', ["loss"], "not finite"),
        ('{"loss": true}', ["loss"], "not finite"),
        ('{"loss": [0.5, 0.4]}', ["loss"], ""),
        ('{"loss": []}', ["loss"], "not finite"),
        ('{"a.b": 1}', ["a.b"], ""),
    ],
)
def test_metrics_must_be_present_and_finite(tmp_path: Path, text: str, metrics: list[str], word: str) -> None:
    (tmp_path / "m.json").write_text(text)
    found = check(tmp_path, "m.json", "json", "expect", metrics=metrics)
    assert found["ok"] == (not word)
    assert word in found["error"]


def test_some_json_file_of_every_cell_must_have_the_metrics(tmp_path: Path) -> None:
    contents = {"c0/done.json": "{}", "c0/best.json": '{"loss": 1}', "c1/done.json": "{}", "c1/best.json": '{"acc": 1}'}
    for path, text in contents.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    files = [{"path": path, "loader": "json"} for path in contents]
    checks = load_checks.check_roster(str(tmp_path), files, "expect", {"metrics": ["loss"]})
    assert [found["path"] for found in checks if not found["ok"]] == ["c1/done.json"]
    assert "lacks the metrics loss" in checks[2]["error"]
    assert set(checks[0]) == {"path", "level", "loader", "tensors", "step", "finite", "ok", "error"}


def test_a_cell_of_checkpoints_alone_cannot_keep_a_promise_of_metrics(checkpoint: Path) -> None:
    assert "lacks the metrics loss" in check(checkpoint.parent, STEP, "torch", "expect", metrics=["loss"])["error"]


def test_the_last_line_that_has_a_metric_speaks_for_a_jsonl_file(tmp_path: Path) -> None:
    lines = [{"step": 1, "loss": 3.0}, {"step": 2, "loss": 2.0}, {"step": 3}]
    (tmp_path / "m.jsonl").write_text("\n".join(json.dumps(line) for line in lines) + "\n")
    found = check(tmp_path, "m.jsonl", "json", "expect", metrics=["loss"])
    assert (found["ok"], found["step"]) == (True, 3)
    (tmp_path / "m.jsonl").write_text('{"step": 1}\n{"ste')
    assert not check(tmp_path, "m.jsonl", "json", "structure")["ok"]


@pytest.mark.parametrize("loader", ["torch", "safetensors", "npz", "json"])
def test_an_empty_missing_linked_or_escaping_file_never_passes(tmp_path: Path, loader: str) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "real.json").write_text("{}")
    (tmp_path / "link").symlink_to("real.json")
    os.mkfifo(tmp_path / "pipe")
    for path in ("empty", "absent", "link", "pipe", "../real.json", "/etc/hostname"):
        assert not check(tmp_path, path, loader, "structure")["ok"], path


def test_an_unknown_loader_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m").write_text("x")
    assert "loader" in check(tmp_path, "m", "keras")["error"]
    found = check(tmp_path, "m", "none")
    assert (found["ok"], found["level"]) == (True, "structure")


def test_deeply_nested_json_is_refused_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text("[" * 200_000)
    assert not check(tmp_path, "m.json", "json", "structure")["ok"]
