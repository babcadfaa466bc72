# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A team's folder beside a marketplace: a run, an inventory of boxes of one platform, keys and a state store."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml
from ansible_collections.tenant.gpu.plugins.module_utils.stamp import new_stamp

from gpu_tenant.marketplace.testing import Handle

ROOT = Path(__file__).parents[2]
PLAY_S = 900.0
# Below the market's address, where each platform's side of it is.
SIDES = {"vast": "", "runpod": "/v1", "lambda": "/lambda/api/v1", "paperspace": "/paperspace/v1"}
ENDED_WITHIN_S = 600.0
# Trains on until the test lets it finish; every start after the first one goes on from the step that was kept.
HELD_TRAINER = """\
import glob, json, os, time

own = os.environ["TENANT_CHECKPOINT_DIR"]
folders = [own, *filter(None, os.environ["TENANT_RESUME_DIRS"].split(os.pathsep))]
kept = sum((glob.glob(os.path.join(folder, "step-*.json")) for folder in folders), [])
step = max((json.load(open(path))["step"] for path in kept), default=0) + 1
with open(os.path.join(own, f"step-{step:010d}.json.tmp"), "w") as stream:
    json.dump({"step": step}, stream)
os.replace(stream.name, stream.name[:-4])
while not os.path.exists("/workspace/let-it-finish"):
    time.sleep(0.1)
with open(os.path.join(os.environ["TENANT_OUTPUT_DIR"], "metrics.json"), "w") as stream:
    json.dump({"step": step}, stream)
"""

# The first start saves and stands until its box is lost; the next one goes on from what was saved, and ends.
LOST_TRAINER = """\
import glob, json, os, signal

own = os.environ["TENANT_CHECKPOINT_DIR"]
folders = [own, *filter(None, os.environ["TENANT_RESUME_DIRS"].split(os.pathsep))]
kept = sum((glob.glob(os.path.join(folder, "step-*.json")) for folder in folders), [])
resumed = max((json.load(open(path))["step"] for path in kept), default=0)
step = resumed + 1
with open(os.path.join(own, f"step-{step:010d}.json.tmp"), "w") as stream:
    json.dump({"step": step}, stream)
os.replace(stream.name, stream.name[:-4])
with open(os.environ["TENANT_METRICS"], "a") as stream:
    stream.write(json.dumps({"resumed_from": resumed}) + "\\n" if resumed else "")
    stream.write(json.dumps({"step": step, "steps": 2}) + "\\n")
if not resumed:
    signal.pause()
with open(os.path.join(os.environ["TENANT_OUTPUT_DIR"], "metrics.json"), "w") as stream:
    json.dump({"step": step}, stream)
"""


def held_spec(run_id: str) -> dict[str, Any]:
    """A run of :data:`HELD_TRAINER` or :data:`LOST_TRAINER`."""
    return {
        "id": run_id,
        "command": ["python", "train.py"],
        "artifacts": [
            {"glob": "checkpoints/step-*.json", "role": "checkpoint", "loader": "json"},
            {"glob": "metrics.json", "role": "metrics", "loader": "json"},
        ],
        "resources": {"gpu_count": 1, "disk_gb": 10},
    }


class TeamFolder:
    """:param secret: what the play's environment holds as ``TRACKER_KEY``, which the run spec may name as a secret.
    :param platform: ``vast``, ``runpod``, ``lambda`` or ``paperspace``: whose side of the marketplace the boxes are on.
    """

    def __init__(
        self,
        folder: Path,
        market: Handle,
        boxes: list[str],
        spec: dict[str, Any],
        trainer: str,
        secret: str,
        platform: str = "vast",
    ) -> None:
        self.folder, self.market, self.secret, self.run_id = folder, market, secret, spec["id"]
        self.platform = platform
        self.state_dir = folder / "state"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "id"], check=True)
        self.write("job/train.py", trainer)
        self.write("job/run.yml", yaml.safe_dump(spec))
        self.write("key", market.api_key)
        self.write("inventory/hosts.yml", yaml.safe_dump({platform: {"hosts": {box: {} for box in boxes}}}))
        self.write("inventory/group_vars/all.yml", yaml.safe_dump(self._variables()))
        self.write("profiles/profiles.yml", "plugin: tenant.gpu.profiles\n")

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def _variables(self) -> dict[str, Any]:
        return {
            "tenant_project": "plain",
            "tenant_run": str(self.folder / "job/run.yml"),
            "tenant_state_dir": str(self.state_dir),
            "tenant_results_dir": str(self.state_dir / "results"),
            f"{self.platform}_api_url": self.market.url + SIDES[self.platform],
            f"{self.platform}_api_key_file": str(self.folder / "key"),
            "ansible_ssh_private_key_file": str(self.folder / "id"),
            "provision_ssh_public_key_file": str(self.folder / "id.pub"),
            "provision_price_cap": 0.6,
            "provision_require_cuda": False,
            "platform_python": "/.box/bin/python3",
        }

    def rent_another(self, box: str, generation: int) -> None:
        """As a controller does that lost its records and a list that lacked the box: the next generation is rented."""
        wanted = {"type": "bid", "order": [["dph_total", "asc"]], "rentable": {"eq": True}}
        offer = self.market.request("POST", "/api/v0/bundles/", wanted)["offers"][0]
        terms = {"image": "debian:12", "disk": 10, "price": offer["min_bid"] * 1.5, "runtype": "ssh_direc ssh_proxy"}
        body = {**terms, "label": str(new_stamp("plain", box, generation))}
        made = self.market.request("PUT", f"/api/v0/asks/{offer['id']}/", body)["new_contract"]
        self.market.wait_until_running(made)

    def sources(self, profiles_first: bool = True) -> list[str]:
        """The inventories as options, in either order."""
        sources = [self.folder / "profiles/profiles.yml", self.folder / "inventory/hosts.yml"]
        return [word for source in sources[:: 1 if profiles_first else -1] for word in ("-i", str(source))]

    def play_on(
        self, limit: str, name: str, *words: str, profiles_first: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """One playbook of ours under plain ansible-playbook."""
        command = [str(Path(sys.executable).parent / "ansible-playbook"), f"playbooks/{name}.yml", "-l", limit]
        return subprocess.run(
            [*command, *self.sources(profiles_first), *words],
            cwd=ROOT,
            env={**os.environ, "TRACKER_KEY": self.secret, "ANSIBLE_FORCE_COLOR": "0", "VAST_API_KEY": ""},
            capture_output=True,
            text=True,
            timeout=PLAY_S,
            check=False,
        )

    def disk(self, instance_id: int) -> Path:
        """A box's disk, which the process engine keeps as a plain folder."""
        return self.market.state_dir / "boxes" / str(instance_id) / "disk/workspace"

    def await_record(self, instance_id: int, record: str) -> None:
        """Until the run has this record of an attempt on the box, as ``a1/done.json``; else what its trainers said."""
        attempts = self.disk(instance_id) / "gpu-tenant/runs" / self.run_id / "main"
        deadline = time.monotonic() + ENDED_WITHIN_S
        while not list(attempts.glob(record)):
            assert time.monotonic() < deadline, [path.read_text() for path in attempts.glob("a*/run.log")]
            time.sleep(0.05)
