# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""From a sealed box to an open gate, through the real modules: supervisor, ssh, torch, receipt, approval."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import approvals, gate
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import BoxIdentity, StateStore
from loopback_sshd import LoopbackBox, loopback_box
from supervised_box import SupervisedBox, supervised_box

pytestmark = pytest.mark.integration
IDENTITY = BoxIdentity("vision", "b1", 1, "77")
TRAINER = """
import json, os, torch
out = os.environ["TENANT_OUTPUT_DIR"]
torch.save({"step": 3, "model": {"w": torch.arange(12.0)}}, os.path.join(out, "model.pt"))
json.dump({"loss": 0.25}, open(os.path.join(out, "best.json"), "w"))
"""


@pytest.fixture(scope="module")
def ssh_box() -> Iterator[LoopbackBox]:
    with loopback_box() as running:
        yield running


@pytest.fixture
def box(tmp_path: Path) -> Iterator[SupervisedBox]:
    folder = tmp_path / "b"
    folder.mkdir()
    with supervised_box(folder) as running:
        yield running


class Home:
    """The controller's side: a state store, a results folder, and the modules as a playbook calls them."""

    def __init__(self, ssh_box: LoopbackBox, box: SupervisedBox, folder: Path) -> None:
        self.ssh, self.box = ssh_box, box
        self.state_dir, self.results = folder / "state", folder / "results"
        self.dest = self.results / "vision" / "digits" / "b1" / "g1"
        self.store = StateStore(str(self.state_dir))

    def manifest(self) -> dict[str, Any]:
        return self.box.verb("manifest", "--run", "digits")

    def pull(self) -> dict[str, Any]:
        arguments = {
            "direction": "pull",
            "src": str(self.box.root / "runs" / "digits"),
            "dest": str(self.dest),
            "dest_root": str(self.results),
            "manifest": self.manifest(),
        }
        return self.ssh.ad_hoc("tenant.gpu.checked_sync", arguments)

    def receipt(self, *flags: str, **changes: Any) -> dict[str, Any]:
        arguments = {
            **IDENTITY.as_dict(),
            "run_id": "digits",
            "root": str(self.dest),
            "run_state": "done",
            "state_dir": str(self.state_dir),
            "level": "expect",
            "expect": {"min_step": 3, "metrics": ["loss"]},
            **changes,
        }
        return self.ssh.ad_hoc("tenant.gpu.receipt", arguments, *flags)

    def gate(self, *flags: str, variables: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
        arguments = {
            **IDENTITY.as_dict(),
            "state_dir": str(self.state_dir),
            "tenant_root": str(self.box.root),
            "verb": "destroy",
            "verb_keeps": [],
            "provider_state": "running",
            **changes,
        }
        return self.ssh.ad_hoc("tenant.gpu.teardown_gate", arguments, *flags, **(variables or {}))

    @property
    def seal_path(self) -> Path:
        return Path(self.store.seal_path("vision", "b1", 1))

    @property
    def receipt_path(self) -> Path:
        return Path(self.store.receipt_path("vision", "digits", "b1", 1))


@pytest.fixture
def home(ssh_box: LoopbackBox, box: SupervisedBox, tmp_path: Path) -> Home:
    (box.workdir / "real.py").write_text(TRAINER)
    artifacts = [
        {"glob": "model.pt", "role": "checkpoint", "loader": "torch"},
        {"glob": "best.json", "role": "metrics", "loader": "json"},
    ]
    box.register(command=["python", "real.py"], artifacts=artifacts)
    box.verb("start")
    box.await_state("done")
    return Home(ssh_box, box, tmp_path)


def test_law_2_the_gate_opens_step_by_step_and_shuts_again(home: Home) -> None:
    refused = home.gate("--check", fail_on_refusal=False)
    assert (refused["allowed"], refused["changed"], refused["failed"]) == (False, False, False)
    assert any("not sealed" in gap for gap in refused["missing"])
    assert not home.seal_path.exists(), "check mode keeps nothing"

    home.box.verb("seal")
    refused = home.gate()
    assert refused["failed"]
    assert refused["failure"]["kind"] == "gate_refused"
    assert [gap.split(":")[0] for gap in refused["missing"]] == [
        "run digits",
        "nobody approved destroy of b1 g1 (provider id 77)",
    ]
    assert "untouched" in refused["msg"]

    assert home.pull()["verified"] is True
    written = home.receipt()
    assert written["changed"] is True, written
    receipt = records.read_record(str(home.receipt_path), "receipt")
    assert receipt["complete"] is True
    (model,) = [check for check in receipt["checks"] if check["loader"] == "torch"]
    assert (model["tensors"], model["step"], model["finite"], model["level"]) == (1, 3, True, "expect")
    digest = receipt["manifest_digest"]

    binds = {"kind": "digest", "digests": {"digits": digest}}
    given = approvals.give(
        home.store, IDENTITY, "destroy", binds, "ada", {"kind": "cli", "ref": "test"}, "the run is home"
    )
    opened = home.gate()
    assert (opened["allowed"], opened["rule"], opened["approval_id"]) == (True, gate.RULE_EVIDENCE_HOME, given["id"])
    assert "read from the box now" in opened["note"]

    # Unreachable, right after: the stored reading counts while it is fresh, and the answer says so.
    stored = home.gate(variables={"ansible_port": 1})
    assert stored["allowed"] is True
    assert "cannot be reached" in stored["note"] or "did not answer" in stored["note"]

    # A checkpoint written after the harvest breaks the seal, however its times are set; a change of mode does not.
    paths = home.box.paths()
    model = Path(paths.output) / "model.pt"
    before, facts = model.read_bytes(), model.stat()
    model.chmod(0o600)
    assert home.gate()["allowed"] is True
    late = Path(paths.checkpoints) / "step-000009.pt"
    late.parent.mkdir(exist_ok=True)
    shutil.copy(model, late)
    model.write_bytes(before[:-1] + b"?")
    for path in (late, model):
        os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    broken = home.gate(fail_on_refusal=False)
    assert broken["allowed"] is False
    told = " ".join(broken["missing"])
    assert "digits/c1/a1/out/checkpoints/step-000009.pt was written since the box was sealed" in told
    assert "digits/c1/a1/out/model.pt was changed since the box was sealed" in told
    assert home.store.contact_path("vision", "b1", 1)
    # The name of the model says no step, so it is to be missed beside all up to the newest step that a name says.
    assert "digits/c1: everything up to step 9 and model.pt" in " ".join(broken["loss"])
    late.unlink()
    model.write_bytes(before)
    # What was seen once is not forgotten: the checkpoint of step 9 was there, and is nowhere.
    assert home.gate()["allowed"] is True, "the sealed files are as they were"

    (model_path,) = home.dest.rglob("model.pt")
    data = bytearray(model_path.read_bytes())
    data[-1] ^= 1
    model_path.write_bytes(data)
    shut = home.gate()
    assert shut["failed"]
    assert "model.pt" in shut["msg"]


def test_law_2_a_mount_is_believed_by_another_kernel_only(home: Home, tmp_path: Path) -> None:
    """The reading is real, and made on the very kernel that wrote the copy: it is kept, and opens nothing."""
    home.box.verb("seal")
    home.pull()
    mount = tmp_path / "mount"
    shutil.copytree(home.dest, mount)
    uri = "mount://ssh.fs/vision/digits/g1"
    arguments = {
        **BoxIdentity("vision", "b2", 1, "78").as_dict(),
        "uri": uri,
        "root": str(mount),
        "manifest": str(home.dest / "manifest.json"),
        "state_dir": str(home.state_dir),
    }
    checked = home.ssh.ad_hoc("tenant.gpu.copy_reading", arguments, "--check")
    assert checked["whole"] is True, checked
    assert not Path(home.store.copy_reading_path("vision", uri)).exists()
    read = home.ssh.ad_hoc("tenant.gpu.copy_reading", arguments)
    assert (read["failed"], read["changed"], read["whole"]) == (False, False, True)
    assert read["reading"]["reader"]["box"] == "b2"
    home.receipt(copies=[{"uri": uri}])
    refused = home.gate(fail_on_refusal=False)
    assert any("page cache of the kernel that wrote it" in gap for gap in refused["missing"]), refused["missing"]

    (mount / "c1/a1/done.json").write_text("{}")
    torn = home.ssh.ad_hoc("tenant.gpu.copy_reading", arguments)
    assert (torn["whole"], torn["reading"]["problems"][0].split()[0]) == (False, "c1/a1/done.json")
    wrong = home.ssh.ad_hoc("tenant.gpu.copy_reading", {**arguments, "uri": f"file://{mount}"})
    assert wrong["failed"]
    assert "mount://<platform>.<tier>/<path>" in wrong["msg"]


def test_law_2_a_cell_that_lives_under_a_seal_is_seen(home: Home) -> None:
    """A forged seal over a living cell: what lives is read from the box's processes, not from its promise."""
    home.box.verb("seal")
    seal = json.loads((home.box.root / "seal.json").read_text())
    (home.box.root / "seal.json").unlink()
    home.box.register_held(run_id="second")
    home.box.verb("start")
    home.box.await_state("running", "second")
    (home.box.root / "seal.json").write_text(json.dumps(seal))
    refused = home.gate(fail_on_refusal=False)
    assert refused["evidence"]["live_cells"] == ["second/c1/a1"]
    assert any("second/c1/a1" in gap for gap in refused["missing"])
    home.box.release()


def test_law_2_a_half_written_seal_on_the_box_is_refused_by_name(home: Home) -> None:
    home.box.verb("seal")
    seal = home.box.root / "seal.json"
    seal.write_bytes(seal.read_bytes()[:50])
    refused = home.gate(fail_on_refusal=False)
    assert any(str(seal) in gap for gap in refused["missing"])


def test_law_9_a_receipt_is_predicted_written_and_then_kept(home: Home) -> None:
    home.box.verb("seal")
    missing = home.receipt()
    assert missing["failed"]
    assert missing["failure"]["kind"] == "evidence_missing"
    home.pull()
    predicted = home.receipt("--check")
    assert (predicted["changed"], predicted["receipt"]["complete"]) == (True, True)
    assert not home.receipt_path.exists()
    assert home.receipt()["changed"] is True
    before = home.receipt_path.read_bytes()
    assert home.receipt()["changed"] is False
    assert home.receipt_path.read_bytes() == before

    (home.dest / "c1/a1/done.json").write_text("{}")
    broken = home.receipt()
    assert broken["failed"]
    assert "c1/a1/done.json" in broken["msg"]
    assert not home.receipt_path.exists(), "withdrawn before it was verified again"


def test_verify_load_runs_on_the_box(home: Home) -> None:
    files = [{"path": "c1/a1/out/model.pt", "loader": "torch"}]
    arguments = {"root": str(home.box.root / "runs" / "digits"), "files": files, "level": "expect"}
    passed = home.ssh.ad_hoc("tenant.gpu.verify_load", arguments, "--check")
    assert (passed["failed"], passed["changed"]) == (False, False)
    assert passed["checks"][0]["tensors"] == 1
    failed = home.ssh.ad_hoc("tenant.gpu.verify_load", {**arguments, "expect": {"min_step": 4}})
    assert failed["failed"]
    assert "step 3" in failed["msg"]
    assert failed["checks"][0]["ok"] is False
