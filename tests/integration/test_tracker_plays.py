# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What the playbooks do with a run's tracker: the panel's link and what it lists, and runs that were kept offline."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box import tracker
from ssh_team import SshTeam, ssh_team
from supervised_box import wait_for
from tracker_programs import KEY, LOG_TO_TENSORBOARD, LOG_TO_WANDB, python_with, tensorboard
from wandb_server import wandb_server

pytestmark = pytest.mark.integration
METRICS = """\
import json
with open(os.path.join(os.environ["TENANT_OUTPUT_DIR"], "metrics.json"), "w") as stream:
    json.dump({"loss": 0.5}, stream)
"""
RUN_IN_TENSORBOARD = "vision-shown/main/a1/out/tracker"


def spec_of(run_id: str, **changes: Any) -> dict[str, Any]:
    artifacts = [{"glob": "metrics.json", "role": "metrics", "loader": "json"}]
    return {"id": run_id, "command": ["python", "train.py", "sent"], "artifacts": artifacts, **changes}


@pytest.fixture
def team(tmp_path: Path) -> Iterator[SshTeam]:
    trainer = tmp_path / "trainer.py"
    trainer.write_text(LOG_TO_TENSORBOARD + METRICS)
    with ssh_team(tmp_path, spec_of("shown", tracker="tensorboard"), trainer) as found:
        yield found


def panel_port() -> int:
    """The first one that is asked: nobody else may answer there. Taken: an error in CI, NOT RUN elsewhere."""
    port = tracker.PANEL_PORTS[0]
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            reason = f"NOT RUN: somebody holds port {port}, where the box's TensorBoard would answer"
            if os.environ.get("CI"):
                pytest.fail(reason)
            pytest.skip(reason)
    return port


def test_deploy_links_the_run_into_the_panel_and_harvest_says_that_it_is_listed(team: SshTeam, tmp_path: Path) -> None:
    python, port, logdir = python_with("tensorboard"), panel_port(), tmp_path / "tf-logs"
    logdir.mkdir()
    box = team.rent("b1", platform_python=python, platform_tensorboard_logdir=str(logdir))
    with tensorboard(python, logdir, port):
        wait_for("the panel to answer", lambda: tracker.look_at_panel(str(logdir), "vision-shown", (port,))["shown"])
        said = team.play("train", "b1")
        assert f"the TensorBoard at http://127.0.0.1:{port} shows the folder of this run, and lists nothing" in said
        assert os.readlink(logdir / "vision-shown") == box.layout.run_dir("shown")
        box.await_state("done", "shown")
        wait_for("the panel to list it", lambda: tracker.look_at_panel(str(logdir), "vision-shown", (port,))["runs"])
        assert f"the TensorBoard at http://127.0.0.1:{port} lists {RUN_IN_TENSORBOARD}" in team.play("harvest", "b1")


def test_harvest_sends_what_was_kept_offline_and_tells_of_what_does_not_go_through(
    team: SshTeam, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    with wandb_server() as server:
        team.job.joinpath("train.py").write_text("import os\n" + LOG_TO_WANDB + METRICS)
        env = {"WANDB_BASE_URL": server.url, "WANDB_SILENT": "true"}
        kept = {"name": "wandb", "mode": "offline"}
        team.write_spec(spec_of("kept", tracker=kept, env=env, secrets=["WANDB_API_KEY"]))
        box = team.rent("b1", platform_python=python_with("wandb"))
        team.play("train", "b1")
        box.await_state("done", "kept")
        (run,) = (box.root / "runs/kept").glob("main/a1/out/tracker/wandb/offline-run-*")
        assert server.runs == []
        # Never answered: it takes all of the time that it may.
        server.silent.add("sent")
        said = team.play("harvest", "b1", "-e", "harvest_tracker_timeout_s=3")
        assert f"{run.relative_to(box.root)} was not sent to wandb (timeout)" in said
        assert "within 3 s" in said
        assert "It stays on the box." in said
        assert run.is_dir()
        assert server.runs == []
        assert list((team.state_dir / "receipts/vision/kept").glob("*.json")), "the results came home all the same"
        server.silent.clear()
        server.over.set()
        again = team.play("harvest", "b1")
        assert "was not sent to wandb" not in again
        assert "sent" in server.runs
        assert [line["loss"] for line in server.history["sent"]] == [1.0, 0.5, 1 / 3]
