# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A sharded run (FSDP on gloo ranks of torchrun) loses its box and goes on, on others, from what came home of it.

Boxes, sshd, supervisors and playbooks are real. The number of ranks is the box's, not the spec's, so the same run goes
on with another one: torch.distributed.checkpoint reshards.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from ssh_team import SshTeam, ssh_team
from supervised_box import SupervisedBox, wait_for

pytestmark = pytest.mark.integration

STEPS, LOST_AT = 8, 6
HELPER = Path(__file__).parents[2] / "roles" / "deploy" / "files"


def spec(gate: Path) -> dict[str, Any]:
    launch = ["python", "-m", "torch.distributed.run", "--standalone", "train.py", "--sharded"]
    return {
        "id": "sharded",
        "command": [
            *launch,
            "--steps",
            str(STEPS),
            "--save-every",
            "2",
            "--hold-at",
            str(LOST_AT),
            "--gate",
            str(gate),
        ],
        "artifacts": [
            {"glob": "model.pt", "role": "checkpoint", "loader": "torch"},
            {"glob": "checkpoints/step-*.dcp/**", "role": "checkpoint", "loader": "dcp"},
        ],
        "resources": {"limits": {"min_free_bytes": 0, "min_free_inodes": 0}},
    }


def ranks(count: int) -> dict[str, Any]:
    return {"deploy_env": {"PET_NPROC_PER_NODE": str(count)}}


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshTeam]:
    """The run has trained to LOST_AT on two ranks, was harvested while it lived, and its box is gone."""
    folder = tmp_path_factory.mktemp("elsewhere")
    gate = folder / "gate"
    os.mkfifo(gate)
    with ssh_team(folder, spec(gate)) as team:
        first = team.rent("first", **ranks(2))
        team.play("train", "first")
        saved = Path(first.layout.attempt("sharded", "main", 1).checkpoints, f"step-{LOST_AT:010d}.dcp")
        wait_for(f"the save of step {LOST_AT}", saved.exists)
        # Its platform names neither mirrors nor a proxy.
        assert not (first.root / "mirrors.env").exists()
        caches = first.root.parent / ".cache"
        assert {"HF_HOME": f"{caches}/huggingface", "PIP_CACHE_DIR": f"{caches}/pip"}.items() <= told(first).items()
        team.play("harvest", "first", "-e", json.dumps({"harvest_snapshot": True}))
        # Somebody has a look at the curves, just before the box is lost.
        look = {"harvest_snapshot": True, "harvest_roles": ["metrics"]}
        assert "beside-g1 and has no receipt" in team.play("harvest", "first", "-e", json.dumps(look))
        first.kill_everything()
        shutil.rmtree(first.root)
        yield team


def told(box: SupervisedBox) -> dict[str, str]:
    """What the trainer that lives there was started with."""
    status = json.loads(Path(box.layout.attempt("sharded", "main", 1).status).read_text())
    words = Path(f"/proc/{status['process']['pid']}/environ").read_text().split("\0")
    return {name: text for name, _equals, text in (word.partition("=") for word in words)}


def metrics(box: SupervisedBox) -> list[dict[str, Any]]:
    path = Path(box.layout.attempt("sharded", "main", 1).metrics)
    return [json.loads(line) for line in path.read_text().splitlines()]


def weights(box: SupervisedBox) -> dict[str, torch.Tensor]:
    path = Path(box.layout.attempt("sharded", "main", 1).output, "model.pt")
    state: dict[str, torch.Tensor] = torch.load(path, weights_only=True)["state"]
    return state


def test_two_and_four_ranks_of_other_boxes_go_on_from_what_came_home(team: SshTeam) -> None:
    home = team.results / "vision/sharded/first/g1/main/a1/out/checkpoints"
    carried = sorted(path.name for path in home.iterdir())
    assert carried == [f"step-{LOST_AT:010d}.dcp"]
    assert (team.results / "vision/sharded/first/beside-g1/manifest.json").is_file()
    boxes = {name: (team.rent(name, **ranks(count)), count) for name, count in (("second", 2), ("third", 4))}
    shown = team.play("train", "second,third")
    assert shown.count(f"main step {LOST_AT}") >= 2
    loaded = shown[shown.index("Resume | Load them with the Python that trains") :]
    assert {"ok: [second]", "ok: [third]"} <= {line.strip() for line in loaded.splitlines()[1:3]}, loaded[:400]
    assert "for their structure only" not in shown
    for box, count in boxes.values():
        place = Path(box.layout.cell_dir("sharded", "main"), "resume", team.spec["spec_sha256"][:12])
        brought = place / f"step-{LOST_AT:010d}.dcp"
        assert {path.name for path in brought.iterdir()} == {path.name for path in (home / brought.name).iterdir()}
        box.await_state("done", "sharded")
        lines = metrics(box)
        assert (lines[0]["resumed_from"], lines[0]["path"]) == (LOST_AT, str(brought))
        assert [line["step"] for line in lines if "step" in line] == list(range(LOST_AT + 1, STEPS + 1))
        last = Path(box.layout.attempt("sharded", "main", 1).checkpoints, f"step-{STEPS:010d}.dcp")
        assert len(list(last.glob("rank-*.pt"))) == count

    # Two ranks end with the very bits of a training that nobody disturbed, four with its weights up to rounding.
    for name, tensor in undisturbed(team).items():
        assert torch.equal(weights(boxes["second"][0])[name], tensor), name
        torch.testing.assert_close(weights(boxes["third"][0])[name], tensor, rtol=1e-4, atol=1e-6)


def undisturbed(team: SshTeam) -> dict[str, torch.Tensor]:
    """The weights after the same command on two ranks, without a box, a loss and a resume."""
    out = team.folder / "undisturbed"
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "train.py"]
    places = {"TENANT_OUTPUT_DIR": str(out), "TENANT_CHECKPOINT_DIR": str(out / "checkpoints")}
    subprocess.run(
        [*words, "--sharded", "--steps", str(STEPS), "--save-every", "2"],
        cwd=team.job, env={**os.environ, **places, "PYTHONPATH": str(HELPER)}, check=True, timeout=600,
    )  # fmt: skip
    state: dict[str, torch.Tensor] = torch.load(out / "model.pt", weights_only=True)["state"]
    return state


def test_the_second_deploy_changes_nothing(team: SshTeam) -> None:
    box = team.rent("fourth", **ranks(2))
    team.play("deploy", "fourth")
    assert list(Path(box.layout.cell_dir("sharded", "main"), "resume").rglob("manifest.json"))
    shown = team.play("deploy", "fourth")
    assert "changed=0" in shown.replace(" ", ""), shown[-800:]
