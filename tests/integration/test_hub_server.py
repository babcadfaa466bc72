# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The Hub of the tests is honest: Hugging Face's own library, unmodified, uses it as it uses the real one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import stores
from ansible_collections.tenant.gpu.plugins.plugin_utils import object_transfer
from hub_server import READ_TOKEN, REPOSITORY, WRITE_TOKEN, HubServer, hub_server
from test_hub_store import PREFIX, URI, Run, login

pytestmark = pytest.mark.integration


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    for name, value in login(tmp_path).items():
        monkeypatch.setenv(name, value)
    with hub_server() as running:
        running.reset()
        yield running


def with_the_library(server: HubServer, folder: Path, script: str, token: str = WRITE_TOKEN) -> Any:
    """What ``script`` leaves in ``result``, run by the library in a process of its own."""
    program = f"import json\nfrom huggingface_hub import *\napi = HfApi()\n{script}\nprint(json.dumps(result))\n"
    environment = {**os.environ, "HF_ENDPOINT": server.url, "HF_TOKEN": token, "HF_HOME": str(folder / "hf-home")}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env={**environment, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "127.0.0.1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_the_library_uploads_to_it_and_reads_it_back(server: HubServer, tmp_path: Path) -> None:
    server.part_bytes = 1024 * 1024
    small, large = os.urandom(5000), os.urandom(server.part_bytes + 77)
    (tmp_path / "small.pt").write_bytes(small)
    (tmp_path / "large.pt").write_bytes(large)
    script = f"""
adds = [CommitOperationAdd("in/" + name, name) for name in ("small.pt", "large.pt")]
adds.append(CommitOperationAdd("in/note.txt", b"a note"))
done = api.create_commit("{REPOSITORY}", adds, commit_message="three files", repo_type="dataset")
listed = api.list_repo_tree("{REPOSITORY}", "in", repo_type="dataset", recursive=True)
sizes = {{each.path: each.size for each in listed if hasattr(each, "size")}}
there = [open(hf_hub_download("{REPOSITORY}", "in/" + name, repo_type="dataset"), "rb").read().hex()
         for name in ("small.pt", "large.pt", "note.txt")]
result = [done.oid, sizes, there]
"""
    commit, sizes, there = with_the_library(server, tmp_path, script)
    assert commit == server.repository.branches["main"]
    assert sizes == {"in/small.pt": 5000, "in/large.pt": len(large), "in/note.txt": 6}
    assert there == [small.hex(), large.hex(), b"a note".hex()]
    assert server.tree()["in/large.pt"].oid
    assert not server.tree()["in/note.txt"].oid


def test_the_library_reads_what_we_stored(server: HubServer, tmp_path: Path) -> None:
    run = Run(server, tmp_path / "box", big=True)
    stored = run.store()
    assert stored["verified"]
    server.page_files = 2
    script = f"""
import hashlib
folder = snapshot_download("{REPOSITORY}", repo_type="dataset", revision="{stored["copies"][0]["version_id"]}")
result = {{path: hashlib.sha256(open(folder + "/{PREFIX}/" + path, "rb").read()).hexdigest() for path in PATHS}}
"""
    files = {file["path"]: file["sha256"] for file in run.record()["files"]}
    assert with_the_library(server, tmp_path, f"PATHS = {list(files)!r}\n{script}", READ_TOKEN) == files


def test_the_librarys_file_system_spells_addresses_as_we_do(server: HubServer, tmp_path: Path) -> None:
    Run(server, tmp_path / "box").store()
    script = f"""
fs = HfFileSystem()
result = [sorted(fs.find("{URI}")), len(fs.cat("{URI}/c0/a1/out/model.pt"))]
"""
    found, size = with_the_library(server, tmp_path, script)
    assert f"{URI.removeprefix('hf://')}/manifest.json" in found
    assert (len(found), size) == (4, 2000)


def test_we_keep_a_run_that_the_library_stored_in_lfs(server: HubServer, tmp_path: Path) -> None:
    """A folder that somebody uploads with the library is as good a copy, if git-LFS keeps it by its hashes."""
    run = Run(server, tmp_path / "box")
    (run.folder / "manifest.json").write_text(json.dumps(run.record()))
    line = f"{PREFIX}/** filter=lfs diff=lfs merge=lfs -text"
    script = f"""
to = {{"repo_id": "{REPOSITORY}", "repo_type": "dataset"}}
api.upload_file(path_or_fileobj={line.encode()!r}, path_in_repo=".gitattributes", **to)
result = api.upload_folder(folder_path="{run.folder}", path_in_repo="{PREFIX}", **to).oid
"""
    commit = with_the_library(server, tmp_path, script)
    copy = {"uri": URI, "endpoint_url": server.url, "version_id": commit, "how": "reread"}
    (run.folder / "manifest.json").unlink()
    assert stores.reread(copy) == (run.record()["digest"], ())
    order = run.order(folder=str(tmp_path / "home"), manifest=None, extra="quarantine")
    assert object_transfer.fetch(order)["verified"]


@pytest.mark.parametrize(
    ("script", "name"),
    [
        ("api.repo_info('ada/nothing', repo_type='dataset')", "RepositoryNotFoundError"),
        (f"api.repo_info('{REPOSITORY}', repo_type='dataset', revision='nowhere')", "RevisionNotFoundError"),
        (f"hf_hub_download('{REPOSITORY}', 'nothing.pt', repo_type='dataset')", "EntryNotFoundError"),
        (
            f"api.create_commit('{REPOSITORY}', [CommitOperationAdd('a.txt', b'a')], commit_message='a', "
            "repo_type='dataset', parent_commit='0' * 40)",
            "HfHubHTTPError",
        ),
    ],
)
def test_the_library_knows_its_refusals(server: HubServer, tmp_path: Path, script: str, name: str) -> None:
    wrapped = (
        f"try:\n    {script}\nexcept Exception as error:\n    result = [each.__name__ for each in type(error).__mro__]"
    )
    assert name in with_the_library(server, tmp_path, wrapped)
