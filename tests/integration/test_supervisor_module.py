# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The modules supervisor and manifest in real plays: check mode, diff, second run, failures that speak."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from supervised_box import SupervisedBox, python38, supervised_box
from tenant_plays import CORES, ROOT, Plays

pytestmark = pytest.mark.integration


class BoxPlays:
    """Plays whose one host is this machine with the tenant root of a supervised box."""

    def __init__(self, box: SupervisedBox, folder: Path, core: str) -> None:
        self.box = box
        self.plays = Plays(ROOT / core / "bin", folder)
        host = {"ansible_connection": "local", "ansible_python_interpreter": box.python}
        self.plays.write_inventory({"all": {"hosts": {"b1": host}}})

    def do(self, module: str, *flags: str, ok: bool = True, **options: Any) -> dict[str, Any]:
        """What one task returned."""
        task = {"name": "it", f"tenant.gpu.{module}": options, "ignore_errors": not ok}
        answers, _done = self.plays.play([task], *flags)
        answer: dict[str, Any] = answers["it"]
        assert answer.get("failed", False) is not ok, answer
        return answer

    def supervisor(self, *flags: str, ok: bool = True, **options: Any) -> dict[str, Any]:
        return self.do("supervisor", *flags, ok=ok, tenant_root=str(self.box.root), **options)

    def deploy(self) -> None:
        """What the deploy role does: the program under its content-addressed name."""
        folder = self.box.root / "bin"
        folder.mkdir(parents=True)
        (folder / "supervisor-0123456789ab.pyz").write_bytes(self.box.program.read_bytes())


@pytest.fixture(params=["this python", "python 3.8"])
def plays(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BoxPlays]:
    """The newest ansible-core, and the oldest one with the oldest Python that it can drive."""
    newest = request.param == "this python"
    folder = tmp_path / "plays"
    folder.mkdir()
    with supervised_box(tmp_path, sys.executable if newest else python38()) as box:
        yield BoxPlays(box, folder, CORES[-1] if newest else CORES[0])


def held(box: SupervisedBox) -> dict[str, Any]:
    command = ["python", "train.py", "--steps", "4", "--hold-at", "2", "--gate", str(box.gate)]
    return box.run_record(command=command)


def test_the_life_of_a_run(plays: BoxPlays) -> None:
    box, run = plays.box, held(plays.box)
    # Before deploy: nothing to see; a rehearsal knows that deploy will bring the program.
    assert plays.supervisor()["supervisor"]["runs"] == []
    assert plays.supervisor("--check", state="started", run=run)["changed"]
    assert "deploy playbook" in plays.supervisor(ok=False, state="started", run=run)["msg"]
    assert not box.root.exists()

    plays.deploy()
    predicted = plays.supervisor("--check", "--diff", state="registered", run=run)
    assert not os.path.exists(box.layout.index)
    made = plays.supervisor("--diff", state="registered", run=run)
    assert (predicted["changed"], predicted["diff"]) == (made["changed"], made["diff"])
    assert list(made["diff"]["after"]["runs"]) == ["digits"]
    assert not plays.supervisor(state="registered", run=run)["changed"]

    predicted = plays.supervisor("--check", "--diff", state="started", run_id="digits")
    assert box.layout.attempt_numbers("digits", "c1") == []
    made = plays.supervisor("--diff", state="started", run_id="digits", epoch=3)
    assert (predicted["changed"], predicted["diff"]) == (made["changed"], made["diff"])
    assert made["supervisor"]["runs"][0]["cells"][0]["liveness"] == "alive"
    for flags in ([], ["--check"]):
        again = plays.supervisor(*flags, state="started", run_id="digits", run=run)
        assert not again["changed"]
        assert again["diff"] == {"before": {}, "after": {}}
    assert plays.supervisor(ok=False, state="held", epoch=2)["failure"]["kind"] == "lease_held"

    refused = plays.supervisor(ok=False, state="sealed")
    assert (refused["failure"]["kind"], refused["failure"]["box"]) == ("gate_refused", "b1")
    assert plays.supervisor("--check", state="sealed", stop_live=True)["changed"]
    assert not os.path.exists(box.layout.seal)
    assert plays.supervisor(state="sealed", stop_live=True)["seal"]["runs"][0]["state"] == "preempted"
    assert not plays.supervisor(state="sealed")["changed"]
    refused = plays.supervisor(ok=False, state="started", run_id="digits")
    assert box.layout.seal in refused["msg"]
    assert plays.supervisor(state="reconciled")["reason"] == "the box is sealed"

    assert plays.supervisor(state="unsealed")["changed"]
    plays.supervisor(state="started", run_id="digits")
    box.await_state("done")
    box.await_no_daemon()
    assert not plays.supervisor(state="started", run_id="digits")["changed"]
    assert not plays.supervisor(state="stopped")["changed"]
    assert box.layout.attempt_numbers("digits", "c1") == [1, 2]


def test_a_run_that_fails_at_once_fails_the_task_with_its_log(plays: BoxPlays) -> None:
    plays.deploy()
    run = plays.box.run_record(command=["python", "train.py", "--steps", "0", "--exit-code", "7"])
    answer = plays.supervisor(ok=False, state="started", run=run)
    assert answer["failure"]["kind"] == "training_failed"
    assert "exit code 7" in answer["msg"]
    assert any("KeyError" in line for line in answer["log_tail"])
    # The box is told to try again only by somebody who says so.
    plays.supervisor(ok=False, state="started", run_id="digits")
    assert plays.box.layout.attempt_numbers("digits", "c1") == [1]
    plays.supervisor(ok=False, state="started", run_id="digits", retry_failed=True)
    assert plays.box.layout.attempt_numbers("digits", "c1") == [1, 2]


def test_manifests_of_runs_and_folders(plays: BoxPlays) -> None:
    box = plays.box
    box.register()
    box.verb("start")
    box.await_state("done")
    box.await_no_daemon()
    dest = box.folder / "manifest.json"
    of_run = {"tenant_root": str(box.root), "run_id": "digits", "dest": str(dest)}

    assert plays.do("manifest", "--check", **of_run)["changed"]
    assert not dest.exists()
    made = plays.do("manifest", "--diff", **of_run)
    assert made["changed"]
    assert made["diff"] == {"before": {"digest": None}, "after": {"digest": made["manifest"]["digest"]}}
    assert records.read_record(str(dest), "manifest")["digest"] == made["manifest"]["digest"]
    assert not plays.do("manifest", **of_run)["changed"]
    assert (made["manifest"]["state"], made["manifest"]["snapshot"]) == ("done", False)

    # The same files where they lie, listed as a folder.
    folder = {"path": box.layout.run_dir("digits"), "globs": [{"glob": "c1/**"}]}
    looked = plays.do("manifest", compare=made["manifest"], **folder)
    assert looked["comparison"]["missing"] == []
    assert looked["comparison"]["different"] == []
    with open(os.path.join(box.paths().output, "model.pt"), "ab") as stream:
        stream.write(b"x")
    looked = plays.do("manifest", compare=made["manifest"], **folder)
    assert looked["comparison"]["different"] == ["c1/a1/out/model.pt"]
    failed = plays.do("manifest", ok=False, **of_run)
    assert failed["failure"]["kind"] == "evidence_missing"
    assert plays.do("manifest", ok=False, tenant_root=str(box.root), run_id="x")["failure"]["kind"] == "config"
