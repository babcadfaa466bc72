# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Boxes, manifests and trees that would have checked_sync read or write what it must not."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import roster
from checked_run import SYNC, Run
from loopback_sshd import ALIAS, LoopbackBox

pytestmark = pytest.mark.integration


@pytest.fixture
def run(box_with_rsync: LoopbackBox, tmp_path: Path) -> Run:
    return Run(box_with_rsync, tmp_path.name, tmp_path)


def test_law_8_a_hostile_manifest_is_refused_before_the_box_is_asked(run: Run) -> None:
    manifest = run.manifest()
    manifest["files"][0]["path"] = "c0/../../../escaped"
    manifest["digest"] = roster.manifest_digest(manifest)
    result = run.pull_by_ansible(manifest=manifest)
    assert result["failed"]
    assert "path" in result["msg"]
    assert not run.results.exists()


def test_law_8_a_symlink_on_the_box_is_refused_by_name(run: Run) -> None:
    secret = run.box.folder / "secret"
    secret.write_bytes(b"the controller's own")
    (run.folder / "c0/a1/out/link.bin").write_bytes(secret.read_bytes())
    manifest = run.manifest()
    (run.folder / "c0/a1/out/link.bin").unlink()
    (run.folder / "c0/a1/out/link.bin").symlink_to(secret)
    for transport in ("rsync", "stream"):
        result = run.pull(manifest=manifest, transport=transport)
        assert result["failed"]
        assert "link.bin is a symlink" in result["msg"]
    assert not run.dest.exists()


def test_law_8_a_linked_folder_on_the_box_is_refused(run: Run) -> None:
    manifest = run.manifest()
    (run.folder / "c0").rename(run.box.home / f"moved-{run.folder.name}")
    (run.folder / "c0").symlink_to(run.box.home / f"moved-{run.folder.name}")
    result = run.pull(manifest=manifest)
    assert result["failed"]
    assert "symlink" in result["msg"]


def test_law_8_a_destination_outside_its_root_is_refused(run: Run, tmp_path: Path) -> None:
    run.results.mkdir()
    (run.results / "way-out").symlink_to(tmp_path)
    for dest in (tmp_path / "elsewhere", run.results / "way-out" / "x", run.results / ".." / "y"):
        result = run.pull(dest=str(dest))
        assert result["failed"]
        assert "not inside" in result["msg"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results"]


@pytest.mark.parametrize("transport", ["rsync", "stream"])
@pytest.mark.parametrize("known", ["nothing", "another key"])
def test_law_8_a_host_key_that_is_not_pinned_stops_the_transfer(run: Run, transport: str, known: str) -> None:
    """Even where the play's variables switch the check off."""
    hosts = run.box.folder / f"known_hosts_{known.split()[0]}"
    hosts.write_text("")
    if known == "another key":
        words = Path(f"{run.box.key}.pub").read_text().split()[:2]
        hosts.write_text(f"{ALIAS} {' '.join(words)}\n")
    run.link = run.box.link(f"-o StrictHostKeyChecking=no -o UserKnownHostsFile={hosts}")
    result = run.pull(transport=transport)
    assert result["failed"]
    assert result["failure"]["kind"] == "unreachable"
    assert "host key is not the pinned one" in result["msg"]
    assert result["attempts"] == 1
    assert run.at_home() == []


@pytest.mark.parametrize("transport", ["rsync", "stream"])
def test_law_8_a_box_does_not_end_a_transfer_by_what_it_prints(run: Run, transport: str) -> None:
    """It says and returns what ssh would of a wrong host key, once."""
    said = run.box.folder / f"said-{transport}"
    program = run.box.folder / f"forger-{transport}"
    program.write_text(
        f'#!/bin/sh\n[ -e {said} ] && exec "$@"\n: > {said}\necho "Host key verification failed." >&2\nexit 255\n'
    )
    program.chmod(0o755)
    run.link = replace(run.box.link(), become=(str(program),))
    result = run.pull(transport=transport)
    assert said.exists()
    assert (result["verified"], result["attempts"]) == (True, 2)


@pytest.mark.parametrize("transport", ["rsync", "stream"])
def test_law_8_a_box_that_lies_about_its_links_sends_none(run: Run, transport: str) -> None:
    secret = run.box.folder / "secret"
    secret.write_bytes(b"the controller's own")
    link = run.folder / "c0/a1/out/link.bin"
    link.write_bytes(secret.read_bytes())
    manifest = run.manifest()
    link.unlink()
    link.symlink_to(secret)
    run.lies = True
    result = run.pull(manifest=manifest, transport=transport)
    assert result["failed"]
    assert result["verified"] is False
    assert [entry["path"] for entry in result["mismatches"]] == ["c0/a1/out/link.bin"]
    assert not os.path.lexists(run.dest / "c0/a1/out/link.bin")
    assert not (run.dest / "manifest.json").exists()


def test_law_8_a_box_that_sends_more_than_it_was_asked_for_is_cut_off(run: Run) -> None:
    """The stream's sizes come from the box; what does not fit the manifest is not written."""
    manifest = run.manifest()
    run.write("c0/a1/out/model.bin", os.urandom(200_000))
    run.lies = True
    result = run.pull(manifest=manifest, transport="stream")
    assert result["failed"]
    assert "another size" in result["msg"]
    assert not (run.dest / "c0/a1/out/model.bin").exists()
    assert not (run.dest / "manifest.json").exists()


def test_law_8_a_link_in_a_pushed_tree_is_refused_by_name(run: Run) -> None:
    (run.folder / "data").symlink_to("/etc")
    arguments = {"direction": "push", "src": str(run.folder), "dest": str(run.box.home / "code" / "x")}
    result = run.box.ad_hoc(SYNC, arguments)
    assert result["failed"]
    assert "data is a symlink" in result["msg"]


def test_law_8_a_push_stays_inside_its_root_on_the_box(run: Run) -> None:
    result = run.push(dest=str(run.box.folder / "elsewhere"))
    assert result["failed"]
    assert "not inside" in result["msg"]
    assert not (run.box.folder / "elsewhere").exists()
