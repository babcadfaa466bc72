# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Secrets: where they lie, where they must not be found, and how each is proven by what it can do."""

from __future__ import annotations

import base64
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import run_secrets
from ansible_collections.tenant.gpu.plugins.module_utils.box import mounts, secret_file
from input_server import InputServer, input_server
from supervised_box import SupervisedBox, python38, supervised_box
from tenant_plays import CORES, ROOT, Plays

pytestmark = pytest.mark.integration
KEY = "planted-wandb-key-31415"
TOKEN = "planted-hub-token-27182"
VIEWER = json.dumps({"data": {"viewer": {"id": "VXNlcg==", "username": "ada", "entity": "vision-team"}}}).encode()


@pytest.fixture
def server() -> Iterator[InputServer]:
    with input_server() as served:
        basic = "Basic " + base64.b64encode(f"api:{KEY}".encode()).decode()
        served.put("/graphql", VIEWER, token=basic)
        served.put("/api/whoami-v2", b'{"name": "ada"}', token=f"Bearer {TOKEN}")
        yield served


@pytest.fixture
def box(tmp_path: Path) -> Iterator[SupervisedBox]:
    with supervised_box(tmp_path) as made:
        yield made


def task(box: SupervisedBox, *secrets: Any, check: bool = False, **options: Any) -> dict[str, Any]:
    whole = {
        "tenant_root": str(box.root),
        "pyz": str(box.program),
        "python": box.python,
        "path": str(box.root / "runs/digits/secrets.env"),
        "secrets": [run_secrets.check_entry(secret) for secret in secrets],
        **options,
    }
    return {"tenant.gpu.secrets": whole, "check_mode": check, "diff": True, "ignore_errors": True}


def play(folder: Path, core: str, *tasks: dict[str, Any], **environment: str) -> tuple[list[dict[str, Any]], str]:
    folder.mkdir(exist_ok=True)
    plays = Plays(ROOT / core / "bin", folder)
    plays.write_inventory({"all": {"hosts": {"b1": {"ansible_connection": "local"}}}})
    named = [dict(each, name=f"task {number}") for number, each in enumerate(tasks)]
    # Without pipelining a module's arguments would go through a file; what is sent here must not.
    answers, done = plays.play(named, "-vvv", ANSIBLE_PIPELINING="false", ANSIBLE_KEEP_REMOTE_FILES="1", **environment)
    return [answers[each["name"]] for each in named], done.stdout + done.stderr


@pytest.mark.parametrize("core", [CORES[0], CORES[-1]])
def test_secrets_lie_in_one_file_and_nowhere_else(server: InputServer, tmp_path: Path, core: str) -> None:
    (tmp_path / "box").mkdir()
    with supervised_box(tmp_path / "box", python38()) as box:
        env = {"WANDB_BASE_URL": server.url, "HF_ENDPOINT": server.url}
        values = {"WANDB_API_KEY": KEY, "MY_TOKEN": TOKEN}
        wanted = ("WANDB_API_KEY", {"name": "HF_TOKEN", "env": "MY_TOKEN"})
        answers, printed = play(
            tmp_path / "plays",
            core,
            task(box, *wanted, check=True, env=env),
            task(box, *wanted, env=env),
            task(box, *wanted, env=env),
            task(box, *wanted, check=True, env=env),
            task(box, "WANDB_API_KEY", env=env),
            **values,
        )
        foretold, made, again, checked, fewer = answers
        assert (foretold["changed"], foretold["renewed"]) == (True, ["HF_TOKEN", "WANDB_API_KEY"])
        assert made["changed"], made
        assert {each["name"]: (each["state"], each["who"]) for each in made["secrets"]} == {
            "WANDB_API_KEY": ("proven", "vision-team"),
            "HF_TOKEN": ("proven", "ada"),
        }
        assert not again["changed"]
        assert not checked["changed"]
        assert (fewer["changed"], fewer["renewed"]) == (True, ["HF_TOKEN"])
        path = box.root / "runs/digits/secrets.env"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert path.read_text() == f"WANDB_API_KEY={KEY}\n"
        told = printed + json.dumps(answers)
        assert KEY not in told
        assert TOKEN not in told
        files = [each for each in tmp_path.rglob("*") if each.is_file()]
        assert [each for each in files if KEY.encode() in each.read_bytes()] == [path]


def test_before_deploy_a_check_foretells_and_a_run_says_what_is_missing(tmp_path: Path, box: SupervisedBox) -> None:
    gone = str(box.folder / "none.pyz")
    (foretold, failed), _printed = play(
        tmp_path / "plays",
        CORES[-1],
        task(box, {"name": "A", "check": "none"}, check=True, pyz=gone),
        task(box, {"name": "A", "check": "none"}, pyz=gone),
        A="x",
    )
    assert foretold["changed"]
    assert failed["failed"]
    (unset,), _printed = play(tmp_path / "plays", CORES[-1], task(box, "NOT_SET_ANYWHERE"))
    assert "NOT_SET_ANYWHERE is not set" in unset["msg"]


def prove(box: SupervisedBox, values: dict[str, str], checks: dict[str, Any], **env: str) -> dict[str, dict[str, str]]:
    """What the program on the box says of each secret."""
    proof = {"checks": [{"name": name, "check": each} for name, each in checks.items()], "env": env}
    order = {"path": str(box.root / "secrets.env"), "values": values, "prove": proof}
    answer = box.verb("secrets", "--order-file", "-", stdin=json.dumps(order))
    assert not any(value in json.dumps(answer) for value in values.values())
    return {each["name"]: each for each in answer["secrets"]}


@pytest.fixture
def new_box(tmp_path: Path) -> Iterator[SupervisedBox]:
    with supervised_box(tmp_path) as made:
        yield made


def test_wrong_secrets_are_told_from_unreachable_services(server: InputServer, new_box: SupervisedBox) -> None:
    server.put("/mine", b"{}", token="0815", token_header="x-api-key")
    checks = {"K": "wandb", "T": "huggingface", "H": {"url": server.url + "/mine", "header": "X-Api-Key"}, "N": "none"}
    env = {"WANDB_BASE_URL": server.url, "HF_ENDPOINT": server.url}
    right = prove(new_box, {"K": KEY, "T": TOKEN, "H": "0815", "N": "whatever"}, checks, **env)
    assert {name: each["state"] for name, each in right.items()} == {
        "K": "proven",
        "T": "proven",
        "H": "proven",
        "N": "unchecked",
    }
    wrong = prove(new_box, {"K": "wrong-key", "T": "wrong-token", "H": "wrong-h", "N": "whatever"}, checks, **env)
    assert {wrong[name]["state"] for name in "KTH"} == {"wrong"}
    assert "HTTP 401" in wrong["K"]["why"]
    # A wandb server answers an unknown key like nobody's: without a viewer, and without an error.
    server.put("/graphql", b'{"data": {"viewer": null}}')
    assert "knows no user" in prove(new_box, {"K": KEY}, {"K": "wandb"}, **env)["K"]["why"]
    server.put("/graphql", b"<html>log in</html>")
    assert prove(new_box, {"K": KEY}, {"K": "wandb"}, **env)["K"]["state"] == "unreachable"
    away = prove(new_box, {"T": TOKEN}, {"T": "huggingface"}, HF_ENDPOINT=server.url + "/nowhere")
    assert away["T"]["state"] == "unreachable"


def test_a_secret_never_follows_a_redirect(server: InputServer, new_box: SupervisedBox) -> None:
    with input_server() as elsewhere:
        elsewhere.put("/api/whoami-v2", b'{"name": "thief"}')
        server.put("/api/whoami-v2", b"", redirect=elsewhere.url + "/api/whoami-v2")
        prove(new_box, {"T": TOKEN}, {"T": "huggingface"}, HF_ENDPOINT=server.url)
        assert [headers.get("authorization") for _m, _p, headers in elsewhere.requests] == [None]


def test_a_wrong_key_fails_the_deploy_with_its_name(
    server: InputServer, tmp_path: Path, new_box: SupervisedBox
) -> None:
    env = {"WANDB_BASE_URL": server.url}
    (refused, unproven), printed = play(
        tmp_path / "plays",
        CORES[-1],
        task(new_box, "WANDB_API_KEY", env=env),
        task(new_box, "WANDB_API_KEY", env=env, prove=False),
        WANDB_API_KEY="planted-and-wrong",
    )
    assert refused["failure"]["kind"] == "config"
    assert "WANDB_API_KEY does not work" in refused["msg"]
    assert unproven["secrets"] == []
    assert "planted-and-wrong" not in printed + json.dumps([refused, unproven])


def test_a_place_that_others_see_is_refused(new_box: SupervisedBox, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    (shared / "deep").mkdir(parents=True)
    os.symlink(shared / "deep", tmp_path / "link")
    order = {"path": str(tmp_path / "link/new/secrets.env"), "values": {"A": "x"}, "shared": [str(shared)]}
    code, refused = new_box.ask("secrets", "--order-file", "-", stdin=json.dumps(order))
    assert (code, refused["kind"]) == (11, "environment")
    assert "several boxes see" in refused["error"]
    assert "deploy_secrets_dir" in refused["fix"]
    assert not list(shared.rglob("*.env"))


@pytest.mark.parametrize(("kind", "seen"), [("nfs4", True), ("fuse.s3fs", True), ("ext4", False), ("overlay", False)])
def test_a_network_file_system_is_no_place(monkeypatch: pytest.MonkeyPatch, kind: str, seen: bool) -> None:
    monkeypatch.setattr(mounts, "mount_of", lambda path: ("/data", kind))
    assert bool(secret_file.place_problem("/data/secrets.env", [])) is seen
