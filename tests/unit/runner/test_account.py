# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The account tells only what it has read again: each broken piece of evidence shows, and costs the verdict."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import receipts, roster
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.journal import Journal
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore
from rich.console import Console

from gpu_tenant import account
from gpu_tenant.workspace import History

SPEC_SHA = "ab" * 32
METRICS = [{"resumed_from": 40, "path": "x"}, {"step": 41, "loss": 1.0}, {"step": 100, "loss": 0.5}]
CHECKS = ({"path": "a/a2/out/model.pt", "ok": True, "tensors": 14, "step": 100, "loader": "torch", "level": "load"},)


class Api:
    def __init__(self, rows: Any) -> None:
        self.rows = rows

    def provider_now(self) -> None:
        return None

    def charges(self, since: float, until: float) -> Any:
        if isinstance(self.rows, TenantFailure):
            raise self.rows
        return self.rows


BILL = [
    {"source": "instance-41", "amount": 0.001, "items": [{"type": "gpu", "amount": 0.001}]},
    {"source": "instance-42", "amount": 0.009, "items": [{"type": "gpu", "amount": 0.009}]},
    {"source": "instance-77", "amount": 9.0, "items": []},
]


class Home:
    """A finished run: records, a copy at home, and the code that evaluates it."""

    def __init__(self, root: Path) -> None:
        self.store = StateStore(str(root / "state"))
        self.results = root / "results" / "demo" / "digits" / "b1" / "g2"
        self.history = History(root / "history.jsonl")
        self.code = root / "code"
        self.code.mkdir()
        (self.code / "evaluate.py").write_text("import json, sys\nprint(json.dumps({'accuracy': 0.98}))\n")
        self.spec: dict[str, Any] = {
            "id": "digits", "spec_sha256": SPEC_SHA, "evaluate": ["python", "evaluate.py", "{model}"], "env": {},
            "code_dir": str(self.code), "workdir": ".",
            "artifacts": [{"glob": "checkpoints/*.pt", "role": "checkpoint"}, {"glob": "*.pt", "role": "checkpoint"}],
        }  # fmt: skip
        self._files()
        self._records()

    def _files(self) -> None:
        contents = {
            "a/a2/metrics.jsonl": "\n".join(map(json.dumps, METRICS)).encode(),
            "a/a2/done.json": b"{}",
            "a/a2/out/model.pt": b"weights",
        }
        for name, data in contents.items():
            (self.results / name).parent.mkdir(parents=True, exist_ok=True)
            (self.results / name).write_bytes(data)
        files = [
            {"path": name, "bytes": len(data), "sha256": records.sha256_file(str(self.results / name)), "role": "other"}
            for name, data in sorted(contents.items())
        ]
        manifest = {"project": "demo", "run_id": "digits", "box": "b1", "generation": 2, "files": files}
        self.digest = roster.manifest_digest(manifest)
        records.write_record(str(self.results / "manifest.json"), "manifest", {**manifest, "digest": self.digest})

    def _records(self) -> None:
        identity = {"project": "demo", "box": "b1", "generation": 2, "provider_id": "42"}
        receipt = {
            **identity, "run_id": "digits", "complete": True, "spec_sha256": SPEC_SHA, "manifest_digest": self.digest,
            "verified_at": "2026-11-21T00:00:00Z", "copies": [{"uri": f"file://{self.results}"}],
        }  # fmt: skip
        records.write_record(self.store.receipt_path("demo", "digits", "b1", 2), "receipt", receipt)
        born, gone = "2026-11-21T00:00:00Z", "2026-11-21T01:00:00Z"
        self.store.update_box(
            "demo", "b1", 1, provider_id="41", machine_id=7, created_at=born, destroyed_at=gone,
            rejection={"refusals": ["offered 24 GB, nvidia-smi reports 16 GB"]},
        )  # fmt: skip
        self.store.update_box(
            "demo", "b1", 2, provider_id="42", machine_id=8, price_per_hour=0.2, created_at=born, destroyed_at=gone
        )
        records.write_record(self.store.approval_path("ap-1"), "approval", {"id": "ap-1", "approver": "Ada"})
        Journal(self.store).append("effect", "destroy", provider_id="42", rule="evidence_home", approval_id="ap-1")
        offer = {"id": 5, "machine_id": 8, "num_gpus": 1, "gpu_name": "RTX 4090", "price_per_hour": 0.2, "why": "cheap"}
        self.history.append("vast_offer_info", box="b1", best=offer, offers=[offer])
        self.history.append("interruption", box="b1", why="a higher bid took its GPU", step=45)

    def draw_up(self, rows: Any = None) -> account.Account:
        api = Api(BILL if rows is None else rows)
        return account.draw_up(self.store, "demo", self.spec, self.history, api)  # type: ignore[arg-type]  # asks charges only


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    def verify(root: str, manifest: Any, level: str, expect: Any, spans: bool) -> receipts.Verification:
        assert (level, spans) == ("load", False)
        return receipts.Verification((), CHECKS, ())

    monkeypatch.setattr(receipts, "verify", verify)
    return Home(tmp_path)


def text_of(drawn: account.Account) -> str:
    console = Console(width=300)
    with console.capture() as shown:
        account.show(drawn, console)
    return shown.get()


def test_a_whole_account(home: Home) -> None:
    drawn = home.draw_up()
    assert drawn.verified, drawn.unverified
    assert (drawn.resumed_from, drawn.steps) == ({"a": 40}, {"a": 100})
    assert (drawn.files_verified, drawn.evaluation) == (3, {"accuracy": 0.98})
    assert drawn.billed_total == pytest.approx(0.01)
    assert [(story.why, story.destroyed_by, story.rule) for story in drawn.boxes] == [
        ("", "", ""), ("cheap", "Ada", "evidence_home"),
    ]  # fmt: skip
    shown = text_of(drawn)
    for words in (
        "refused by the probe: offered 24 GB, nvidia-smi reports 16 GB",
        "chosen: offer 5 (machine 8): 1 x RTX 4090, $0.2000 an hour: cheap",
        "around step 45: a higher bid took its GPU",
        "cell a: resumed from step 40, finished at step 100",
        "14 tensors, step 100",
        "accuracy 0.98",
        "approved by Ada (rule: evidence_home)",
        "billed by the provider: $0.0100 (gpu $0.0100)",
        "everything above was verified just now",
    ):
        assert words in shown
    json.dumps(drawn.as_dict())


def test_without_a_receipt_nothing_is_home(home: Home) -> None:
    home.spec["spec_sha256"] = "ff" * 32
    drawn = home.draw_up()
    assert not drawn.verified
    assert "no complete receipt" in drawn.unverified[0]


@pytest.mark.parametrize("damage", ["change", "delete", "manifest"])
def test_a_damaged_copy_shows(home: Home, damage: str) -> None:
    model = home.results / "a/a2/out/model.pt"
    if damage == "change":
        model.write_bytes(b"Weights")
    elif damage == "delete":
        model.unlink()
    else:
        (home.results / "manifest.json").write_text("{")
    drawn = home.draw_up()
    assert not drawn.verified
    assert drawn.evaluation is None
    assert "NOT everything" in text_of(drawn)


def test_a_copy_of_other_files_does_not_count(home: Home) -> None:
    path = home.store.receipt_path("demo", "digits", "b1", 2)
    receipt = records.read_record(path, "receipt")
    records.write_record(path, "receipt", {**receipt, "manifest_digest": "0" * 64})
    assert "not what the receipt speaks of" in " ".join(home.draw_up().unverified)


def test_a_checkpoint_that_does_not_load_shows(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = ({"path": "a/a2/out/model.pt", "ok": False, "error": "is cut short", "tensors": None},)
    monkeypatch.setattr(receipts, "verify", lambda *unused, spans: receipts.Verification((), failed, ()))
    unverified = " ".join(home.draw_up().unverified)
    assert "is cut short" in unverified
    assert "no checkpoint with tensors" in unverified


def test_a_run_whose_checkpoints_are_json_lacks_no_tensors(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = ({"path": "a/a2/out/model.pt", "ok": True, "error": "", "tensors": None},)
    monkeypatch.setattr(receipts, "verify", lambda *unused, spans: receipts.Verification((), loaded, ()))
    assert home.draw_up().unverified == ["no checkpoint with tensors was loaded"]
    home.spec["artifacts"] = [{"glob": "*.pt", "role": "checkpoint", "loader": "json"}]
    assert home.draw_up().unverified == []


@pytest.mark.parametrize("program", ["import sys; sys.exit('no such model')", "print('fine')", "while True: pass"])
def test_an_evaluation_that_proves_nothing_shows(home: Home, monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    monkeypatch.setattr(account, "EVALUATE_TIMEOUT_S", 2.0)
    (home.code / "evaluate.py").write_text(program)
    assert "evaluation of the copy at home failed" in " ".join(home.draw_up().unverified)


def test_an_evaluation_never_sees_the_account_key(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAST_API_KEY", "planted")
    program = "import json, os\nprint(json.dumps({'seen': 'VAST_API_KEY' in os.environ}))\n"
    (home.code / "evaluate.py").write_text(program)
    assert home.draw_up().evaluation == {"seen": False}


@pytest.mark.parametrize("rows", [[], TenantFailure("provider", "no answer")])
def test_an_unknown_bill_is_unknown_and_not_zero(home: Home, rows: Any) -> None:
    drawn = home.draw_up(rows)
    assert drawn.billed_total is None
    assert not drawn.verified
    assert "billed: unknown" in text_of(drawn)


def test_a_box_that_its_provider_ended_was_not_destroyed(tmp_path: Path) -> None:
    record = {"generation": 1, "provider_id": "7", "destroyed_at": "2026-11-21T00:00:00Z", "lost": True}
    story = account._story(StateStore(str(tmp_path)), "b1", record, {}, [])
    assert story.destroyed_at is None
    assert account.fate(story).startswith("gone since 2026-11-21T00:00:00Z: its provider has it no more")


def test_metrics_with_torn_and_foreign_lines(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('[1]\n{"resumed_from": 3}\n{"step": 4}\n{"step": 5, "loss"')
    assert account.read_metrics(path) == (4, 3)
    assert account.read_metrics(tmp_path / "absent") == (None, None)


def test_the_model_is_the_first_checkpoint_outside_the_checkpoints_folder(home: Home) -> None:
    found = account.main_artifact(str(home.results), home.spec)
    assert found == home.results / "a/a2/out/model.pt"
