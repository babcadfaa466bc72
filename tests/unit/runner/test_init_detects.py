# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""``gpu-tenant init`` asks nothing that this machine tells, and what it writes is read back by what will use it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from ansible_collections.tenant.gpu.plugins.module_utils.markets import MARKETS
from ansible_collections.tenant.gpu.plugins.module_utils.run_spec import load_run_spec
from click.testing import CliRunner

from gpu_tenant import detect, scaffold
from gpu_tenant.cli import cli

# AWS has no single key, but a chain of its own.
KEYED = sorted(name for name, market in MARKETS.items() if market.CLIENT.KEY_VARIABLE)
KEYS = sorted(MARKETS[name].CLIENT.KEY_VARIABLE for name in KEYED)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of a person without any key."""
    folder = tmp_path / "My Vision!"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("VAST_API_KEY", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    return folder


def told(*words: str) -> dict[str, list[str]]:
    done = CliRunner().invoke(cli, ["init", *words, "--json"])
    assert done.exit_code == 0, done.output
    answer: dict[str, list[str]] = json.loads(done.stdout)
    return answer


def variables(folder: Path, name: str) -> dict[str, str]:
    found: dict[str, str] = yaml.safe_load((folder / f"inventory/group_vars/{name}.yml").read_text())
    return found


def test_with_nothing_to_be_found_it_says_what_is_missing(here: Path) -> None:
    answer = told()
    assert variables(here, "all")["tenant_project"] == "my-vision"
    assert "tenant_run" not in variables(here, "all")
    assert "vast_api_key_file" not in variables(here, "vast")
    steps = " ".join(answer["next"])
    for words in ("ssh-keygen", "VAST_API_KEY", "--run-only --script", "$0.50", "gpu-tenant plan -l vast"):
        assert words in steps


def test_what_is_there_is_found(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (".ssh/id_rsa", ".ssh/id_rsa.pub", ".ssh/id_ed25519", ".vast_api_key"):
        path = tmp_path / "home" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (here / "requirements.txt").touch()
    (here / "main.py").write_text("import os\n  import wandb\nfrom tenant_checkpoint import Checkpoints\n")
    monkeypatch.setenv("WANDB_API_KEY", "planted")
    answer = told("--price-cap", "0.25")
    # A key without its public half opens nothing.
    assert variables(here, "vast")["ansible_ssh_private_key_file"] == "~/.ssh/id_rsa"
    assert variables(here, "vast")["vast_api_key_file"] == "~/.vast_api_key"
    assert variables(here, "vast")["provision_price_cap"] == 0.25
    assert len(answer["next"]) == 2
    spec = load_run_spec(str(here / "runs/my-vision.yml"))
    assert (spec["command"], spec["requirements"]) == (["python", "main.py"], "requirements.txt")
    assert [one["glob"] for one in spec["artifacts"]] == ["checkpoints/step-*.pt"]
    assert spec["tracker"]["name"] == "wandb"
    assert spec["budget"] == {"usd": 6.0}
    assert not [each for each in spec["code_files"] if each["path"].startswith(("inventory/", "runs/"))]
    assert "planted" not in "".join(path.read_text() for path in here.rglob("*.yml"))


def test_the_team_folder_need_not_be_where_the_code_is(here: Path) -> None:
    (here / "train.py").write_text("print('no helper, no tracker')\n")
    told("../team", "--project", "p")
    spec = load_run_spec(str(here.parent / "team/runs/train.yml"))
    assert [each["path"] for each in spec["code_files"]] == ["train.py"]
    assert [(one["glob"], one["loader"]) for one in spec["artifacts"]] == [("**", "none")]


def test_a_run_can_be_added_to_a_folder_that_has_an_inventory(here: Path) -> None:
    told()
    refused = CliRunner().invoke(cli, ["init", "--run-only"])
    assert refused.exit_code == 10
    assert "no training script" in refused.output
    (here / "tune.py").touch()
    assert [Path(path).name for path in told("--run-only", "--script", "tune.py")["files"]] == ["tune.yml"]
    again = CliRunner().invoke(cli, ["init", "--run-only", "--script", "tune.py"])
    assert again.exit_code == 10
    assert "already there" in again.output


@pytest.mark.parametrize("name", ["...", "日本", "-", "x" * 80])
def test_a_folder_whose_name_is_no_project_asks_for_one(tmp_path: Path, name: str) -> None:
    assert detect.project_of(tmp_path / name) == ""
    done = CliRunner().invoke(cli, ["init", str(tmp_path / name)])
    assert done.exit_code == 10
    assert not (tmp_path / name / "inventory").exists()


@pytest.mark.parametrize("text", ["a: b # {{ x }}", "it's: 'x'", '"'])
def test_a_script_of_any_name_makes_a_readable_spec(here: Path, text: str) -> None:
    script = here / f"{text}.py".replace("/", "")
    script.touch()
    [path] = told("--project", "p", "--script", str(script), "--run-only")["files"]
    assert load_run_spec(path)["command"] == ["python", script.name]


@pytest.mark.parametrize("platform", [name for name in scaffold.platforms() if not scaffold.driver_of(name)])
def test_where_a_person_rents_there_is_an_address_and_no_key_of_a_market(
    here: Path, tmp_path: Path, platform: str
) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home/.vast_api_key").touch()
    steps = " ".join(told("--platform", platform)["next"])
    assert variables(here, platform) == {"ansible_ssh_private_key_file": "~/.ssh/id_ed25519"}
    hosts = yaml.safe_load((here / "inventory/hosts.yml").read_text())
    assert hosts == {platform: {"hosts": {"box-1": {"ansible_host": "box-1.invalid", "ansible_port": 22}}}}
    text = "".join(path.read_text() for path in here.rglob("*.yml")) + steps
    assert not [word for word in ("API_KEY", "api_key", "cap", "vast") if word in text]
    assert "inventory/hosts.yml" in steps


@pytest.mark.parametrize("driver", KEYED)
def test_every_market_is_asked_for_its_own_key(here: Path, monkeypatch: pytest.MonkeyPatch, driver: str) -> None:
    """The platform is named as no market is, so that only its driver can tell."""
    profile = here / "rented.yml"
    profile.write_text(f"platform_driver: {driver}\n")
    monkeypatch.setattr(scaffold, "_profiles", lambda: {"rented": profile})
    for name in KEYS:
        monkeypatch.delenv(name, raising=False)
    steps = " ".join(told("team", "--platform", "rented", "--project", "p")["next"])
    text = (here / "team/inventory/group_vars/rented.yml").read_text()
    own = MARKETS[driver].CLIENT.KEY_VARIABLE
    for told_where in (text, steps):
        assert [name for name in KEYS if name in told_where] == [own]
        assert f"{driver}_api_key_file" in told_where
    assert yaml.safe_load(text)["provision_price_cap"] == 0.5


def test_aws_is_asked_for_a_region_and_no_key(here: Path) -> None:
    steps = " ".join(told("team", "--platform", "aws_spot", "--project", "p")["next"])
    text = (here / "team/inventory/group_vars/aws_spot.yml").read_text()
    assert "set aws_spot_region, and credentials as for any AWS tool" in steps
    assert "API_KEY" not in text + steps
    assert yaml.safe_load(text)["aws_spot_region"] == "us-east-1"
