# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The life of one box by plain ``ansible-playbook``: the roles as a team uses them, without the runner."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from input_server import InputServer, input_server
from team_folder import ENDED_WITHIN_S, PLAY_S, ROOT, TeamFolder
from vanishing import files_below, read

from gpu_tenant.marketplace.testing import Handle, running_marketplace

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="boxes with a root of their own need root"),
]

BOX = "train-me"
PLANTED_KEY = "planted-account-key-4711"
PLANTED_SECRET = "planted-tracker-secret-0815"
ROWS = b"a,b\n1,2\n" * 5000

# Trains on until the file that the test makes is there, so that "while it trains" is a condition and not a guess.
TRAINER = """\
import json, os, sys, time, torch
from tenant_checkpoint import EXIT_STOPPED, Checkpointer

out = os.environ["TENANT_OUTPUT_DIR"]
release = os.path.join(os.environ["HOME"], "let-it-finish")
assert os.environ["TRACKER_KEY"].startswith("planted"), "the secret did not arrive"
with open(os.path.join(os.environ["TENANT_INPUTS_DIR"], "data/rows.csv")) as rows:
    assert rows.readline() == "a,b\\n", "the input did not arrive"
torch.manual_seed(int(os.environ["TENANT_SEED"]))
torch.set_num_threads(1)
model = torch.nn.Linear(8, 8)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
checkpoints = Checkpointer({"model": model, "optimizer": optimizer}, longest_interval_s=0.5, metrics_every=10)
checkpoints.load_latest()
while not os.path.exists(release):
    optimizer.zero_grad()
    loss = (model(torch.randn(64, 8)) ** 2).mean()
    loss.backward()
    optimizer.step()
    checkpoints.after_step(loss=loss.item())
    time.sleep(0.02)  # a step on a GPU leaves the processor to others, here to the plays
    if checkpoints.should_stop:
        sys.exit(EXIT_STOPPED)
checkpoints.save(wait=True)
torch.save(model.state_dict(), os.path.join(out, "model.pt"))
with open(os.path.join(out, "metrics.json"), "w") as stream:
    json.dump({"loss": loss.item(), "steps": checkpoints.step}, stream)
"""
SPEC = {
    "id": "gated",
    "command": ["python", "train.py"],
    "secrets": ["TRACKER_KEY"],
    "artifacts": [
        {"glob": "model.pt", "role": "checkpoint", "loader": "torch"},
        {"glob": "checkpoints/step-*.pt", "role": "checkpoint", "loader": "torch"},
        {"glob": "metrics.json", "role": "metrics", "loader": "json"},
    ],
    "resources": {"gpu_name": "RTX 4090", "gpu_count": 1, "min_gpu_ram_gb": 20, "disk_gb": 10},
}


HEAVY_BYTES = 50 * 10**9


def heavy_spec(server: InputServer) -> dict[str, Any]:
    """A run whose input is too large for any disk here: only its size is ever asked."""
    url = server.put("/large.bin", b"", statuses=[(200, {"Content-Length": str(HEAVY_BYTES)})])
    large = {"uri": url, "sha256": "a" * 64, "dest": "data/large.bin"}
    return {**SPEC, "id": "heavy", "secrets": [], "inputs": [large], "resources": {"disk_gb": 100}}


def of_box(done: subprocess.CompletedProcess[str], box: str) -> str:
    """What the play's tasks said of this box, each up to what they said of the next."""
    said = re.split(r"^(?=(?:ok|changed|skipping|fatal): \[)", done.stdout, flags=re.MULTILINE)
    return "".join(each for each in said if re.match(rf"\w+: \[{box}[ \]]", each))


class Team(TeamFolder):
    def __init__(self, folder: Path, market: Handle, server: InputServer) -> None:
        self.server = server
        self.rows_url = server.put("/rows.csv", ROWS, etag='"1"', cuts=[1000])
        rows = {"uri": self.rows_url, "sha256": hashlib.sha256(ROWS).hexdigest(), "dest": "data/rows.csv"}
        super().__init__(folder, market, [BOX], dict(SPEC, inputs=[rows]), TRAINER, PLANTED_SECRET)

    def play(self, name: str, *words: str, profiles_first: bool = True) -> subprocess.CompletedProcess[str]:
        return self.play_on("vast", name, *words, profiles_first=profiles_first)

    def changes(self, name: str, *words: str, **how: Any) -> list[str]:
        """The tasks that changed something; a failed play fails the test."""
        done = self.play(name, *words, **how)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
        assert "DEPRECAT" not in done.stdout + done.stderr, done.stderr
        assert re.search(rf"^{BOX}\s.*failed=0", done.stdout, re.MULTILINE), done.stdout[-2000:]
        tasks = re.split(r"^TASK \[", done.stdout, flags=re.MULTILINE)[1:]
        return [task.split("]")[0] for task in tasks if re.search("^changed: ", task, re.MULTILINE)]

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """The runner, as somebody at a terminal would start it."""
        argv = [sys.executable, "-m", "gpu_tenant", *words]
        return subprocess.run(argv, capture_output=True, text=True, timeout=600, check=False)

    def offers(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.market.request("POST", "/api/v0/bundles/", {"rentable": {"eq": True}})[
            "offers"
        ]
        return found

    def instances(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.market.state()["instances"]
        return found

    def on_the_box(self, command: str) -> str:
        (row,) = self.instances()
        generation = row["label"].split("/")[3]
        options = [f"UserKnownHostsFile={self.state_dir}/known_hosts/{BOX}", f"HostKeyAlias={BOX}.{generation}"]
        words = [word for option in options for word in ("-o", option)]
        ssh = ["ssh", "-i", str(self.folder / "id"), *words, "-p", str(row["ports"][0])]
        login = f"{self.market.login}@127.0.0.1"
        done = subprocess.run([*ssh, login, command], capture_output=True, text=True, timeout=600, check=False)
        return done.stdout

    def cell(self) -> dict[str, Any]:
        pyz = "/workspace/gpu-tenant/bin/supervisor-*.pyz"
        status = self.on_the_box(f"/.box/bin/python3 {pyz} --root /workspace/gpu-tenant status")
        found: dict[str, Any] = json.loads(status)["runs"][0]["cells"][0]
        return found

    def wait_for_cell(self, what: str, seen: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        deadline = time.monotonic() + ENDED_WITHIN_S
        while not seen(cell := self.cell()):
            assert time.monotonic() < deadline, f"no {what} within {ENDED_WITHIN_S:g} s: {cell}"
            time.sleep(0.3)
        return cell


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    folder = tmp_path_factory.mktemp("plain")
    market_dir = folder / "market"
    with input_server() as server, running_marketplace("process", api_key=PLANTED_KEY, state_dir=market_dir) as market:
        yield Team(folder, market, server)


# The tests of this file are one story and run in this order.


def test_check_from_zero_boxes_shows_the_money_and_rents_nothing(team: Team) -> None:
    with input_server() as large:
        team.write("job/heavy.yml", yaml.safe_dump(heavy_spec(large)))
        heavy = {"heavy": {"tenant_run": "{{ inventory_dir }}/job/heavy.yml"}}
        team.write("planned.yml", yaml.safe_dump({"vast": {"hosts": heavy}}))
        done = team.play("site", "--check", "--diff", "-i", str(team.folder / "planned.yml"))
        assert done.returncode == 0, done.stdout[-3000:]
        assert [method for method, _path, _headers in large.requests] == ["HEAD"]
    # By what the very offer takes for a GB, which the market says.
    assert f"data/large.bin: {HEAVY_BYTES} bytes" in done.stdout
    ((bills, per_gb),) = re.findall(r"\$([0-9.]+) at \$([0-9.]+) per GB", of_box(done, "heavy"))
    assert float(per_gb) in {offer["inet_down_cost"] for offer in team.offers()}
    assert bills == f"{float(per_gb) * HEAVY_BYTES / 1e9:.4f}"
    assert float(bills) > 0
    for word in ("price_per_hour", "price_cap", "clocks", "offer"):
        assert word in done.stdout
    assert "the box would download 1 input: 0.000 GB" in done.stdout
    assert f"data/rows.csv: {len(ROWS)} bytes" in done.stdout
    assert re.search(r"\$0\.0000 at \$[0-9.]+ per GB", done.stdout), done.stdout[-3000:]
    assert [method for method, _path, _headers in team.server.requests] == ["HEAD"]
    assert team.instances() == []
    assert not (team.state_dir / "boxes").exists()


# What is wrong with each box, and what is said of it.
REFUSED: dict[str, tuple[dict[str, Any], list[str]]] = {
    "no-cap": ({"provision_price_cap": 0}, ["no price cap is set"]),
    "low-cap": ({"provision_price_cap": 0.01}, ['"kind": "no_offer"']),
    "no-budget": (
        {"provision_budget_per_hour": 0.01},
        ['"kind": "budget"', "above the budget_per_hour of $0.01"],
    ),
    "no-dollars": (
        {"tenant_budget_usd": 0.01},
        ['"kind": "budget"', "project plain has spent $0.00 of its budget of $0.01", "$0.60, does not fit"],
    ),
    "no-run-dollars": (
        {"tenant_run": "{{ inventory_dir }}/job/poor.yml"},
        ['"kind": "budget"', "run poor has spent $0.00 of its budget of $0.02", "raise budget.usd in the run spec"],
    ),
    "dollars-in-words": ({"tenant_budget_usd": "a lot"}, ["tenant_budget_usd"]),
    "no-spec": ({"tenant_run": "/nowhere/run.yml"}, ["cannot read the run spec"]),
    "no-driver": ({"platform_driver": "teleport"}, ["teleport"]),
    "no-key": ({"vast_api_key_file": "/nowhere/key"}, ["/nowhere/key"]),
}


@pytest.fixture(scope="module")
def refused(team: Team) -> dict[str, str]:
    """What one play said of each of these boxes: a play of its own for each costs seconds."""
    hosts = {name: variables for name, (variables, _says) in REFUSED.items()}
    team.write("job/poor.yml", yaml.safe_dump({**SPEC, "id": "poor", "secrets": [], "budget": {"usd": 0.02}}))
    team.write("refused.yml", yaml.safe_dump({"vast": {"hosts": hosts}}))
    done = team.play_on(",".join(REFUSED), "site", "-i", str(team.folder / "refused.yml"))
    assert done.returncode != 0
    assert "Traceback" not in done.stdout + done.stderr
    assert not re.search(r"^\S+\s+:.*failed=0", done.stdout, re.MULTILINE), done.stdout[-2000:]
    lines = done.stdout.splitlines()
    return {name: "\n".join(line for line in lines if re.search(rf"\[{name}[ \]]", line)) for name in REFUSED}


@pytest.mark.parametrize("box", REFUSED)
def test_bad_input_is_one_clear_error_and_rents_nothing(team: Team, refused: dict[str, str], box: str) -> None:
    for words in REFUSED[box][1]:
        assert words in refused[box]
    assert team.instances() == []


def test_the_last_offer_that_may_be_tried_is_given_back_too(team: Team) -> None:
    done = team.play("provision", "-e", "provision_max_attempts=1")
    assert done.returncode != 0
    assert '"kind": "probe_refused"' in done.stdout
    assert (
        "1 boxes were rented and refused by the probe; the last because the probe refused this box: offered"
        in done.stdout
    )
    assert done.stdout.count("Bail | Destroy the virgin box") == 1
    assert team.instances() == []


def test_train_from_nothing(team: Team) -> None:
    assert len(team.changes("train")) > 5
    labels = [row["label"] for row in team.instances()]
    # The first was given back by the play before, the second by this one, which then tried another offer.
    assert [label.split("/")[3] for label in labels] == ["g3"], "the box that lied was to be given back"
    assert [each for each in team.server.ranges_asked("/rows.csv") if each] == ["bytes=1000-"]
    records = [json.loads(path.read_text()) for path in (team.state_dir / "boxes").rglob("*.json")]
    admissions = [record["admission"] for record in records if record.get("admission")]
    assert [admission["host_key"]["how"] for admission in admissions] == ["instance_log"]


def test_site_changes_nothing_while_the_run_trains(team: Team) -> None:
    before = team.wait_for_cell("training", lambda cell: cell["state"] == "running" and (cell["step"] or 0) > 50)
    assert team.changes("site") == []
    assert team.cell()["attempt"] == before["attempt"]


def test_a_person_looks_at_the_box_from_near_and_from_afar(team: Team) -> None:
    inventory = team.sources()
    log = team.command("logs", BOX, "--json", *inventory)
    assert json.loads(log.stdout)["attempt"] >= 1, log.stderr
    login = team.command("ssh", *inventory, BOX, "echo", "here; exit 7")
    assert (login.returncode, login.stdout) == (7, "here\n"), login.stderr
    seen = team.command("audit", "--json", *inventory)
    *rows, result = map(json.loads, seen.stdout.splitlines())
    assert [(row["whose"], row["state"]) for row in rows] == [("ours", "running")], seen.stderr
    assert result["undeclared"] == 0


def test_killing_the_trainer_costs_an_attempt_and_not_the_run(team: Team) -> None:
    cell = team.wait_for_cell("checkpoint", lambda cell: bool(cell["last_checkpoint"]))
    team.on_the_box(f"kill -9 -{cell['process']['pid']} || kill -9 {cell['process']['pid']}")
    again = team.wait_for_cell("second attempt", lambda cell: cell["attempt"] == 2 and (cell["step"] or 0) > 0)
    assert again["resumed_from_step"] >= cell["last_checkpoint"]["step"]
    # Nor does the order of the inventories change anything.
    assert team.changes("site", profiles_first=False) == []


def test_killing_the_box_is_repaired_by_the_same_command(team: Team) -> None:
    before = team.wait_for_cell("checkpoint", lambda cell: bool(cell["last_checkpoint"]))
    (row,) = team.instances()
    team.market.preempt(row["id"])
    assert team.instances()[0]["phase"] != "running"
    assert len(team.changes("train")) >= 1
    after = team.wait_for_cell("third attempt", lambda cell: cell["attempt"] == 3 and (cell["step"] or 0) > 0)
    assert after["resumed_from_step"] >= before["last_checkpoint"]["step"]


def test_killing_the_runner_in_mid_harvest_is_repaired_by_the_same_command(team: Team) -> None:
    team.on_the_box("touch ~/let-it-finish")
    team.wait_for_cell("end", lambda cell: cell["state"] == "done")
    words = ["harvest", "-l", BOX, *team.sources(), "--workspace", str(team.folder / "runner"), "--json"]
    command = [sys.executable, "-m", "gpu_tenant", *words]
    runner = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + PLAY_S
    # On the disk itself: a login takes so long that the harvest could have ended meanwhile.
    seal = team.disk(team.instances()[0]["id"]) / "gpu-tenant/seal.json"
    while not seal.exists():
        assert runner.poll() is None, "the harvest ended before it could be killed"
        assert time.monotonic() < deadline, "the harvest never sealed the box"
        time.sleep(0.02)
    runner.kill()
    runner.wait()
    again = subprocess.run(command, capture_output=True, text=True, timeout=PLAY_S, check=False)
    assert again.returncode == 0, again.stdout[-3000:] + again.stderr


def test_what_was_harvested_is_home_and_the_box_is_parked(team: Team) -> None:
    (receipt,) = (team.state_dir / "receipts/plain/gated").glob("*.json")
    record = json.loads(receipt.read_text())
    assert record["complete"] is True
    assert {check["path"].split("/")[-1] for check in record["checks"]} >= {"model.pt", "metrics.json"}
    left = {entry["path"]: entry["why"] for entry in record["not_pulled"]}
    assert left["main/a1/metrics.jsonl"] == "of an attempt that another one replaced"
    assert record["not_pulled_totals"]["files"] == len(left)
    assert not any(path.endswith(".json") for path in left), "records of ours are no results"
    provenance = record["provenance"]
    assert (provenance["platform"], provenance["seeds"]) == ("vast", {"main": 0})
    assert provenance["cost"]["estimate"] > 0
    assert "unknown" not in (provenance["torch"], provenance["driver"], provenance["supervisor_sha256"])
    assert "RTX 4090" in provenance["gpus"][0]["name"]
    assert team.instances()[0]["phase"] != "running", "a box whose results are home still bills for its GPU"
    assert team.changes("harvest") == []


def test_site_changes_nothing_after_the_run(team: Team) -> None:
    assert team.changes("site") == []


def test_a_forged_variable_does_not_open_the_gate(team: Team) -> None:
    forged = json.dumps({"allowed": True, "approval_id": "x", "__teardown_gate": {"allowed": True}})
    done = team.play("teardown", "-e", forged)
    assert done.returncode != 0
    assert '"kind": "gate_refused"' in done.stdout
    assert "nobody approved destroy" in done.stdout
    assert len(team.instances()) == 1


def test_teardown_with_approval_destroys_and_leaves_nothing(team: Team) -> None:
    words = ["approve", "destroy", BOX, "--approver", "Ada", "--reason", "results are home", *team.sources()]
    given = subprocess.run([sys.executable, "-m", "gpu_tenant", *words], capture_output=True, text=True, check=False)
    assert given.returncode == 0, given.stdout + given.stderr
    assert len(team.changes("teardown")) >= 1
    assert team.instances() == []
    assert team.changes("teardown") == []


def test_site_after_a_teardown_rents_nothing(team: Team) -> None:
    assert team.changes("site") == []
    assert team.instances() == []


def test_no_secret_was_written_anywhere_but_where_it_belongs(team: Team) -> None:
    allowed = {team.folder / "key", team.folder / "inventory/group_vars/all.yml"}
    leaks = []
    # The market works on: it replaces its files while they are read.
    for path in files_below(team.folder):
        if path in allowed:
            continue
        data = read(path)
        # The box's own disk holds the delivered secret in its 0600 file, on purpose.
        if PLANTED_KEY.encode() in data or (PLANTED_SECRET.encode() in data and path.name != "secrets.env"):
            leaks.append(str(path.relative_to(team.folder)))
    assert leaks == []


@pytest.mark.parametrize("role", sorted(path.name for path in (ROOT / "roles").iterdir()))
def test_every_default_is_documented(role: str) -> None:
    options = yaml.safe_load((ROOT / f"roles/{role}/meta/argument_specs.yml").read_text())["argument_specs"]["main"]
    path = ROOT / f"roles/{role}/defaults/main.yml"
    defaults = yaml.safe_load(path.read_text()) if path.exists() else {}
    documented = {name for name, option in (options.get("options") or {}).items() if not option.get("required")}
    assert documented == set(defaults or {}), textwrap.dedent(f"roles/{role}: defaults and argument_specs differ")
