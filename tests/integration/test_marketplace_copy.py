# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Copies by the released ``vastai`` client, unmodified: between boxes, with a cloud connection, and its own local ones.

Its exit status says nothing, so every check is on the bytes that arrived or on the market's state.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from marketplace_tools import DEADLINE_S, Tenant

from gpu_tenant.marketplace.testing import Handle, running_marketplace

VASTAI = Path(sys.executable).with_name("vastai")
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not VASTAI.exists(), reason="the official client is not installed beside this Python"),
]


class World:
    """Two boxes: one with results that is stopped, one that runs."""

    def __init__(self, market: Handle, folder: Path) -> None:
        self.market, self.bucket = market, folder / "bucket"
        self.tenant = Tenant(market, folder)
        self.tenant.register_key()
        offers = self.tenant.offers()
        self.stopped, self.running = (self.tenant.rent(offer) for offer in offers[:2])
        self.tenant.run(self.stopped, "mkdir -p /workspace/run && head -c 100000 /dev/urandom >/workspace/run/model.pt")
        self.digest = self.sha256(self.stopped, "/workspace/run/model.pt")
        self.tenant.change(self.stopped, state="stopped")

    def sha256(self, number: int, path: str) -> str:
        return self.tenant.run(number, f"sha256sum <{path}").split()[0]

    def vastai(self, *words: str) -> str:
        home = self.tenant.directory
        places = {f"XDG_{kind}_HOME": str(home / kind.lower()) for kind in ("CONFIG", "CACHE", "STATE", "DATA")}
        done = subprocess.run(
            [str(VASTAI), *words],
            env={
                **os.environ, **places, **self.market.environment, "HOME": str(home), "VASTAI_NO_UPDATE_CHECK": "1",
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )  # fmt: skip
        return done.stdout + done.stderr

    def said(self, number: int, word: str) -> str:
        row = self.market.wait_for(number, lambda one: one is not None and word in str(one["status_msg"]))
        assert row is not None
        return str(row["status_msg"])


@contextlib.contextmanager
def world_of(engine: str, folder: Path) -> Iterator[World]:
    (folder / "bucket").mkdir()
    options = ("--connection", f"backups={folder / 'bucket'}")
    with running_marketplace(engine, speed=60.0, options=options) as market:
        made = World(market, folder)
        try:
            yield made
        finally:
            # Containers outlive their market, instances that were destroyed leave none.
            for number in (made.stopped, made.running):
                market.request("DELETE", f"/api/v0/instances/{number}/", {})
                market.wait_for(number, lambda row: row is None)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world_of("process", tmp_path_factory.mktemp("copies")) as made:
        yield made


def test_copy_from_a_stopped_box_to_a_running_one(world: World) -> None:
    said = world.vastai("copy", f"C.{world.stopped}:/workspace/run/", f"{world.running}:/workspace/home/")
    assert "Remote to Remote copy initiated" in said
    assert "1 files, 100000 bytes" in world.said(world.running, "Finished")
    assert world.sha256(world.running, "/workspace/home/model.pt") == world.digest


def test_cancel_copy(world: World) -> None:
    world.market.request("POST", "/control/copy_fault", {"kind": "copy_stuck"})
    world.vastai("copy", f"C.{world.stopped}:/workspace/run/", f"C.{world.running}:/workspace/never/")
    world.said(world.running, "12%")
    assert "canceled" in world.vastai("cancel", "copy", str(world.running))
    assert "cancelled" in world.said(world.running, "failed")


def test_cloud_copy_and_connections(world: World) -> None:
    assert "backups" in world.vastai("show", "connections")
    words = ["--instance", str(world.stopped), "--connection", "1001", "--transfer", "Instance To Cloud"]
    assert "Cloud Copy Started" in world.vastai("cloud", "copy", "--src", "/workspace/run", "--dst", "kept", *words)
    world.said(world.stopped, "Cloud Copy Operation Finished")
    assert (world.bucket / "kept/run/model.pt").stat().st_size == 100_000


def test_what_cannot_be_is_said_and_not_begun(world: World, tmp_path: Path) -> None:
    assert "404" in world.vastai("copy", "C.424242:/a/", f"C.{world.running}:/b/")
    said = world.vastai("copy", f"C.{world.running}:/workspace/home/", f"local:{tmp_path}/here")
    assert "podman" in said, "local copies need a login that this engine cannot give"


@pytest.mark.podman
@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("podman") is None, reason="podman as root is missing")
def test_containers_are_copied_from_and_to_also_by_the_clients_own_rsync(tmp_path: Path) -> None:
    with world_of("podman", tmp_path) as world:
        world.vastai("copy", f"C.{world.stopped}:/workspace/run/", f"{world.running}:/workspace/home/")
        world.said(world.running, "Finished")
        assert world.sha256(world.running, "/workspace/home/model.pt") == world.digest
        words = ["-i", str(world.tenant.key)]
        world.vastai("copy", f"C.{world.running}:/workspace/home/", f"local:{tmp_path}/here", *words)
        assert (tmp_path / "here/model.pt").stat().st_size == 100_000
        world.vastai("copy", f"local:{tmp_path}/here/", f"C.{world.running}:/workspace/there/", *words)
        assert world.sha256(world.running, "/workspace/there/model.pt") == world.digest
