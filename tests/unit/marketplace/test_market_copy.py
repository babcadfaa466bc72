# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The provider's copies on the wire: real rsync between disks that are plain folders here, on an accelerated clock."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from copy_world import CLOUD, COPY, World

from gpu_tenant.marketplace.commands import connections_in
from gpu_tenant.marketplace.dialects import Dialect, switches


@pytest.fixture
def boxes(world: World) -> tuple[int, int]:
    """A stopped one with results and a running one."""
    first, second = world.rent(), world.rent()
    results = world.disk(first) / "workspace/run"
    (results / "deep").mkdir(parents=True)
    (results / "model.pt").write_bytes(os.urandom(300_000))
    (results / "deep/metrics.json").write_text('{"loss": 1}')
    (results / "latest").symlink_to("model.pt")
    world.call("PUT", f"/api/v0/instances/{first}/", {"state": "stopped"})
    return first, second


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_real_bytes_go_from_a_stopped_box_to_a_running_one(world: World, boxes: tuple[int, int]) -> None:
    stopped, running = boxes
    assert world.row(stopped)["actual_status"] == "exited"
    status, answer = world.copy(f"C.{stopped}", "/workspace/run/", running, "/workspace/home/a/")
    assert (status, answer["success"]) == (200, True)
    said = world.said(running, "Finished")
    assert "2 files, 300011 bytes" in said
    assert said == world.row(stopped)["status_msg"]
    home = world.disk(running) / "workspace/home/a"
    assert contents(home) == contents(world.disk(stopped) / "workspace/run")
    assert (home / "latest").readlink() == Path("model.pt")
    world.copy(f"C.{stopped}", "/workspace/run/", running, "/workspace/home/a/")
    assert "0 files, 0 bytes" in world.said(running, " 0 files")


def test_a_path_without_a_slash_names_the_thing_itself(world: World, boxes: tuple[int, int]) -> None:
    stopped, running = boxes
    world.copy(stopped, "/workspace/run", running, "/workspace")
    world.said(running, "Finished")
    assert (world.disk(running) / "workspace/run/model.pt").exists()


@pytest.mark.parametrize("where", switches()["copy_reports"])
def test_a_dialect_says_which_instance_tells(tmp_path: Path, where: str) -> None:
    world = World(tmp_path / "market", dialect=Dialect(copy_reports=where))
    try:
        first, second = world.rent(), world.rent()
        world.copy(first, "/workspace/", second, "/workspace/")
        told = {"both": [first, second], "source": [first], "destination": [second]}[where]
        for number in told:
            world.said(number, "Finished")
        silent = {first, second} - set(told)
        assert all("Copy" not in str(world.row(number)["status_msg"]) for number in silent)
    finally:
        world.close()


def test_a_missing_source_is_told_in_the_status_only(world: World, boxes: tuple[int, int]) -> None:
    stopped, running = boxes
    assert world.copy(stopped, "/nowhere/", running, "/workspace/")[1]["success"] is True
    assert "No such file or directory" in world.said(running, "failed")


def test_no_link_of_a_tenant_leads_out_of_its_disk(world: World, boxes: tuple[int, int], tmp_path: Path) -> None:
    stopped, running = boxes
    (world.disk(stopped) / "workspace/out").symlink_to("/etc")
    world.copy(stopped, "/workspace/out/", running, "/workspace/x/")
    assert "Not a directory" in world.said(running, "failed")
    (tmp_path / "outside").mkdir()
    (world.disk(running) / "workspace/y").symlink_to(tmp_path / "outside")
    world.copy(stopped, "/workspace/run/", running, "/workspace/y/")
    world.said(running, "Not a directory")
    world.await_(lambda: "/y/" in str(world.row(running)["status_msg"]))
    assert not any((tmp_path / "outside").iterdir())


def test_requests_that_cannot_be(world: World, boxes: tuple[int, int]) -> None:
    stopped, running = boxes
    assert world.copy(424242, "/a/", running, "/b/")[0] == 404
    assert world.copy(stopped, "", running, "/b/") == (
        400, {"success": False, "error": "invalid_args", "msg": "Invalid src_path."}
    )  # fmt: skip
    assert world.copy(stopped, "/a/../../etc/", running, "/b/")[1]["msg"] == "Invalid src_path."
    assert world.copy("drive.7", "/a/", running, "/b/")[1]["error"] == "no_such_user"
    for source in ("V.5", world.rent(stopped=True)):
        status, answer = world.copy(source, "/a/", running, "/b/")
        assert (status, answer["success"]) == (200, False), "some refusals come with status 200"


def test_local_copies_say_that_this_engine_has_none(world: World, boxes: tuple[int, int]) -> None:
    for body in ({"src_id": None, "dst_id": boxes[1]}, {"src_id": f"C.{boxes[1]}", "dst_id": "local"}):
        path = "/api/v0/commands/rsync/" if body["src_id"] is None else COPY
        status, answer = world.call("PUT", path, {**body, "src_path": "a", "dst_path": "b"})
        assert (status, answer["success"]) == (200, False)
        assert "podman" in answer["msg"]


@pytest.mark.parametrize("kind", ["copy_partial", "copy_corrupt", "copy_fails"])
def test_a_fault_damages_what_arrives(world: World, boxes: tuple[int, int], kind: str) -> None:
    stopped, running = boxes
    world.call("POST", "/control/copy_fault", {"kind": kind, "path": "*/model.pt"})
    world.copy(stopped, "/workspace/run/", running, "/workspace/home/")
    world.said(running, "failed" if kind == "copy_fails" else "Finished")
    source, dest = (world.disk(stopped) / "workspace/run", world.disk(running) / "workspace/home")
    assert (dest / "deep/metrics.json").read_bytes() == (source / "deep/metrics.json").read_bytes()
    arrived, sent = (dest / "model.pt").read_bytes(), (source / "model.pt").read_bytes()
    assert arrived != sent
    assert len(arrived) == (len(sent) if kind == "copy_corrupt" else len(sent) // 2)
    world.copy(stopped, "/workspace/run", running, "/workspace/again/")
    world.await_((world.disk(running) / "workspace/again/run/model.pt").exists)
    world.said(running, "/workspace/again/, ")
    assert (world.disk(running) / "workspace/again/run/model.pt").read_bytes() == sent, "one fault, one copy"


def test_a_plan_says_which_copy_of_which_box_is_damaged(world: World, boxes: tuple[int, int]) -> None:
    stopped, running = boxes
    fault = {"kind": "copy_corrupt", "call": "copies", "path": "*/model.pt", "after": 1, "instance": running}
    assert world.call("POST", "/control/faults", {"faults": [{**fault, "instance": 424242}, fault]})[0] == 200
    assert world.call("GET", "/api/v0/users/cloud_integrations/")[0] == 200
    sent = (world.disk(stopped) / "workspace/run/model.pt").read_bytes()
    arrived = []
    for name in ("first", "second", "third"):
        world.copy(stopped, "/workspace/run/", running, f"/workspace/{name}/")
        world.said(running, f"/workspace/{name}/, ")
        arrived.append((world.disk(running) / f"workspace/{name}/model.pt").read_bytes() == sent)
    assert arrived == [True, False, True]
    faults = world.call("GET", "/control/faults")[1]["faults"]
    assert [(one["calls"], one["struck"], one["spent"]) for one in faults] == [(0, 0, False), (2, 1, True)]


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "copy_stuck", "call": "copies", "path": "*"},
        {"kind": "copy_corrupt", "call": "show"},
        {"kind": "copy_corrupt", "call": "copies", "path": ""},
    ],
)
def test_a_fault_of_copies_that_cannot_be(world: World, fault: dict[str, Any]) -> None:
    assert world.call("POST", "/control/faults", {"faults": [fault]})[0] == 400
    assert world.call("POST", "/control/copy_fault", {"kind": "lost_answer"})[0] == 400


def test_a_stuck_copy_stays_until_it_is_cancelled(world: World, boxes: tuple[int, int]) -> None:
    stopped, running = boxes
    world.call("POST", "/control/copy_fault", {"kind": "copy_stuck"})
    world.copy(stopped, "/workspace/run/", running, "/workspace/home/")
    assert "12%" in world.said(running, "12%")
    status, answer = world.call("DELETE", COPY, {"client_id": "me", "dst_id": f"{running}"})
    assert (status, answer["success"]) == (200, True)
    assert "cancelled" in world.said(running, "cancelled")
    assert world.call("DELETE", COPY, {"client_id": "me", "dst_id": "424242"})[0] == 404


def test_a_copy_ends_with_its_instance(world: World, boxes: tuple[int, int]) -> None:
    stopped, running = boxes
    world.call("POST", "/control/copy_fault", {"kind": "copy_stuck"})
    world.copy(stopped, "/workspace/run/", running, "/workspace/home/")
    world.call("DELETE", f"/api/v0/instances/{stopped}/", {})
    assert "not found" in world.said(running, "failed")


def test_a_cloud_connection_takes_and_gives(world: World, boxes: tuple[int, int], tmp_path: Path) -> None:
    stopped, running = boxes
    (connection,) = world.call("GET", "/api/v0/users/cloud_integrations/")[1]
    assert connection == {"id": 1001, "name": "backups", "cloud_type": "s3"}
    body = {"selected": "1001", "flags": ["--size-only"], "instance_id": str(stopped)}
    there = {**body, "src": "/workspace/run/", "dst": "kept/run", "transfer": "Instance To Cloud"}
    assert world.call("POST", CLOUD, there)[1]["success"] is True
    assert world.said(stopped, "Cloud Copy Operation Finished")
    assert contents(tmp_path / "bucket/kept/run") == contents(world.disk(stopped) / "workspace/run")
    back = {**body, "instance_id": str(running), "src": "kept/run/", "dst": "/workspace/back"}
    world.call("POST", CLOUD, {**back, "transfer": "Cloud To Instance"})
    world.said(running, "Cloud Copy Operation Finished")
    assert (world.disk(running) / "workspace/back/model.pt").exists()
    world.copy(stopped, "/workspace/run/", "s3.1001", "/by-copy/")
    world.await_((tmp_path / "bucket/by-copy/model.pt").exists)


@pytest.mark.parametrize(
    "wrong", [{"selected": "7"}, {"transfer": "sideways"}, {"flags": ["--remove-source-files"]}, {"src": ""}]
)
def test_cloud_requests_that_cannot_be(world: World, boxes: tuple[int, int], wrong: dict[str, Any]) -> None:
    body = {"selected": "1001", "instance_id": str(boxes[0]), "src": "/a", "dst": "b", "transfer": "Instance To Cloud"}
    status, answer = world.call("POST", CLOUD, {**body, **wrong})
    assert status in (400, 404)
    assert answer["success"] is False


def test_copies_have_the_markets_interval(tmp_path: Path) -> None:
    world = World(tmp_path / "market", rate_limits=True)
    try:
        assert world.copy(1, "/a", 2, "/b")[0] == 404
        status, said = world.copy(1, "/a", 2, "/b")
        assert (status, "threshold=3.5" in said) == (429, True)
    finally:
        world.close()


def test_a_connection_names_a_folder(tmp_path: Path) -> None:
    assert connections_in((f"b={tmp_path}",)) == (("b", tmp_path),)
    for text in ("b", "=/tmp", f"b={tmp_path}/nowhere"):
        with pytest.raises(Exception, match="NAME=FOLDER"):
            connections_in((text,))


def test_faults_are_named(world: World) -> None:
    assert world.call("POST", "/control/copy_fault", {"kind": "meteor"})[0] == 400
    assert json.dumps(world.market.control_state())
