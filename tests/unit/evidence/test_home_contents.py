# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What the copy of a receipt holds: told from the original by a scene, where any condition of it is wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import bounded_json, home_contents, last_contact, promised
from ansible_collections.tenant.gpu.plugins.module_utils.box import reach, records
from ansible_collections.tenant.gpu.plugins.module_utils.copies import CopyEvidence
from ansible_collections.tenant.gpu.plugins.module_utils.home_contents import Attempt, Contents
from evidence_world import entry, make_manifest
from mutants import survivors

SPEC, WORK, EARLIER = "5" * 64, "c" * 64, "e" * 64
CHECKPOINTS = (
    ("out/model-step-20.pt", "checkpoint", "torch"),
    ("out/optim-step-20.opt", "checkpoint", "none"),
    ("out/optim-step-10.opt", "checkpoint", "none"),
    ("out/notes-step-20.txt", "other", "none"),
    ("out/step-20/config.json", "checkpoint", "hf"),
    ("out/checkpoint-7/model.safetensors", "checkpoint", "hf"),
    ("out/checkpoint-7/optimizer.pt", "checkpoint", "hf"),
    ("out/checkpoint-8/config.json", "checkpoint", "hf"),
    ("out/step-9.dcp/.metadata", "checkpoint", "dcp"),
    ("out/step-9.dcp/__0_0.distcp", "checkpoint", "dcp"),
    ("out/final.pt", "other", "torch"),
    ("out/other.pt", "checkpoint", "none"),
    ("out/readme.md", "other", "none"),
    ("metrics.jsonl", "metrics", "none"),
)


def done(lines: Any, **more: Any) -> bytes:
    return json.dumps({"artifacts": lines, **more}).encode()


class Shelf:
    """Copies at home whose manifests say all, something else, or nothing of the works in them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        whole = [entry(f"c/a1/{name}", name.encode(), loader, role) for name, role, loader in CHECKPOINTS]
        promised_line = {key: whole[0][key] for key in ("path", "bytes", "sha256", "role")}
        unlike = [
            dict(promised_line, **change) for change in ({"bytes": 1}, {"sha256": "0" * 64}, {"path": "c/a1/out/x"})
        ]
        self.lines: dict[str, Any] = {
            "kept": [promised_line],
            "log": [promised_line, dict(unlike[2], role="log")],
            **{f"unlike{number}": [promised_line, line] for number, line in enumerate(unlike)},
            "numbered": [dict(promised_line, path=7)],
            "short": [{"path": promised_line["path"], "bytes": promised_line["bytes"]}],
            "text": ["path, bytes and sha256"],
            "mixed": [promised_line, "model"],
            "worded": "all",
            "empty": [],
        }
        self.files = {line["path"]: line["path"][len("c/a1/") :].encode() for line in whole}
        self.roots = {name: self._shelve(name, done(lines), whole) for name, lines in self.lines.items()}
        for name, data in {"torn": b"{", "list": b"[]"}.items():
            self.roots[name] = self._shelve(name, data, whole, works=None)
        said = {"config_sha256": WORK, "present": True}
        works: dict[str, Any] = {
            "earlier": {"c/a1": {"config_sha256": EARLIER, "present": False}},
            "not said": {"c/a1": {"config_sha256": WORK}},
            "yes": {"c/a1": dict(said, present="yes")},
            "half": {"c/a1": {"config_sha256": "c", "present": True}},
            "words": {"c/a1": "present"},
            "other": {"c/a2": said},
            "listed": [said],
            "none": None,
        }
        for name, value in works.items():
            self.roots[name] = self._shelve(name, done([], spec_sha256="6" * 64), whole, works=value)
        self.roots["own spec"] = self._shelve("own spec", done([], spec_sha256=SPEC), whole, works=None)
        self.roots["no manifest"] = folder / "none"

    def _shelve(self, name: str, record: bytes, files: list[dict[str, Any]], **more: Any) -> Path:
        root = self.folder / name
        listed = [*files, entry("c/a1/done.json", record, "json"), entry("notes.md", b"x"), entry("c/x", b"x")]
        for line, data in zip(listed, [*self.files.values(), record, b"x", b"x"], strict=True):
            place = root / line["path"]
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
        records.write_record(str(root / "manifest.json"), "manifest", make_manifest("r", listed, **more))
        return root

    def look(self) -> Iterator[Any]:
        for root in self.roots.values():
            path = root / "manifest.json"
            record = json.loads(path.read_text()) if path.exists() else {}
            receipt = {"manifest_digest": record.get("digest"), "spec_sha256": record.get("spec_sha256")}
            copies = [CopyEvidence("s3://bucket/r"), CopyEvidence(root.as_uri()), CopyEvidence("file:///nowhere")]
            found = home_contents.read(receipt, copies)
            yield (found, found.untold)
            yield [home_contents.read(dict(receipt, **{key: "0" * 64}), copies) for key in receipt]
            yield home_contents.read(receipt, copies[:1])
        yield promised.read(str(self.folder / "absent"))
        yield from self._reached()

    def _reached(self) -> Iterator[Any]:
        attempt = home_contents.read(*self._of("kept")).attempts["c/a1"]
        checks = [{"path": f"c/a1/{name}", "loader": loader} for name, _role, loader in CHECKPOINTS]
        yield home_contents.reached(checks, Contents({"c/a1": attempt}))
        for check in [
            *checks,
            {"path": "c/a1/logs/model-step-20.pt", "loader": "torch"},
            {"path": "c/a1/out", "loader": "torch"},
        ]:
            yield home_contents.reached([check], Contents({"c/a1": attempt}))
        for short in ("a", "c/a1", "c/a1/out", "out/out/out", "c/a1/logs/step-20/out"):
            yield home_contents.reached([{"path": short, "loader": "torch"}], Contents({"c/a1": attempt}))
        works = {"c/a1": attempt, "c/a2": Attempt("c@eeeeeeeeeeee", attempt.files), "d/a1": Attempt("", attempt.files)}
        again = [dict(check, path=check["path"].replace("c/a1", name)) for check in checks for name in works]
        yield home_contents.reached(
            again, Contents({**works, "e/a1": Attempt("e"), "f/a1": Attempt("f"), "e/a2": Attempt("e", (), True)})
        )

    def _of(self, name: str) -> tuple[dict[str, Any], list[CopyEvidence]]:
        record = json.loads((self.roots[name] / "manifest.json").read_text())
        receipt = {"manifest_digest": record["digest"], "spec_sha256": record["spec_sha256"]}
        return receipt, [CopyEvidence(self.roots[name].as_uri())]


@pytest.mark.parametrize("module", [home_contents, promised], ids=lambda module: module.__name__.rpartition(".")[2])
def test_every_mutant_of_what_a_copy_holds_is_found(module: Any, tmp_path: Path) -> None:
    alive, of = survivors({"shelf": Shelf(tmp_path).look}, module)
    assert alive == [], f"of {of}"


def test_law_2_only_what_was_loaded_and_lies_beside_it_is_a_step_at_home(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    attempt = home_contents.read(*shelf._of("kept")).attempts["c/a1"]
    assert attempt.finished
    found = home_contents.reached(
        [{"path": "c/a1/out/model-step-20.pt", "loader": "torch"}], Contents({"c/a1": attempt})
    )
    names = [name for name, step, _files in found["c"].series if step == 20]
    assert names == ["model-step-*.pt", "notes-step-*.txt", "optim-step-*.opt"]
    assert found["c"].step == 20, "folders that nobody loaded are no step"


def test_law_2_the_done_record_counts_with_all_that_it_promises(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    finished = {name for name in shelf.lines if home_contents.read(*shelf._of(name)).attempts["c/a1"].finished}
    assert finished == {"kept", "log", "empty"}


@pytest.mark.parametrize("unit", ["[]", "{}", "0", '{"a":0}'])
def test_a_done_record_of_more_values_than_one_of_ours_is_not_parsed(
    unit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hostile box writes it, and each gate would make a gigabyte of it."""
    path = tmp_path / "done.json"
    path.write_text('{"artifacts":[' + f"{unit}," * ((16 << 20) // (len(unit) + 1)) + "0]}")
    monkeypatch.setattr(bounded_json.json, "loads", lambda _text: pytest.fail("it was parsed"))
    assert promised.read(str(path)) is None


def test_a_done_record_of_very_many_artifacts_is_read(tmp_path: Path) -> None:
    line = {**entry("c/a1/out/f", b"x"), "executable": False}
    record = {"artifacts": [{**line, "path": f"c/a1/out/shard, part [{number}]"} for number in range(300_000)]}
    path = tmp_path / "done.json"
    path.write_text(json.dumps(record))
    assert promised.lines(promised.read(str(path))) == record["artifacts"]


def test_the_same_series_are_told_on_the_box_and_at_home() -> None:
    units = [
        {
            "key": f"{folder}step-{step}.pt",
            "step": step,
            "files": [{"path": f"{folder}step-{step}.pt", "loader": "torch"}],
        }
        for folder, step in (("", 1), ("", 3), ("quarantine/", 4), ("other/", 2))
    ]
    units.append({"key": "last.pt", "step": None, "files": [{"path": "last.pt", "loader": "torch"}]})
    found = reach.of_units(units)
    series = {"step-*.pt": [[4, 1]], "other/step-*.pt": [[2, 1]]}
    assert found == {"step": 4, "series": series, "unnamed": ["last.pt"]}
    assert last_contact.parse_cell({**found, "done": False}).is_told


def _series(*paths: str, loader: str = "torch") -> dict[str, list[list[int]]]:
    units = [
        {"key": path, "step": int(path.split("step-")[1][:3]), "files": [{"path": path, "loader": loader}]}
        for path in paths
    ]
    series: dict[str, list[list[int]]] = reach.of_units(units)["series"]
    return series


def test_what_was_saved_anew_beside_its_damaged_self_is_one_file() -> None:
    """Counted as two, no copy at home would ever stand for it: the damaged one never comes."""
    anew = ("c/step-100.pt", "c/quarantine/step-100.pt")
    assert _series(*anew) == {"c/step-*.pt": [[100, 1]]}
    assert _series(*anew, "c/step-110.pt") == {"c/step-*.pt": [[110, 1]]}
    assert _series("c/step-100", "c/quarantine/step-100", loader="dcp") == {"c/step-*/": [[100, 1]]}
    assert _series("c/quarantine/step-100.pt") == {"c/step-*.pt": [[100, 1]]}
    ranks = ("c/step-100.r0.pt", "c/quarantine/step-100.r1.pt", "c/step-110.r0.pt")
    assert _series(*ranks) == {"c/step-*.r*.pt": [[100, 2], [110, 1]]}, "the file of another rank is none of these"
