# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The modules inputs and inputs_info in real plays: check mode, second run, presigned objects, failures that speak."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from input_server import InputServer, input_server
from object_server import ACCESS_KEY, BUCKET, SECRET_KEY, ObjectServer, object_server
from supervised_box import SupervisedBox, supervised_box
from tenant_plays import CORES, ROOT, Plays

pytestmark = pytest.mark.integration
DATA = b"rows\n" * 30000
COMMIT = "1234567890abcdef1234567890abcdef12345678"


@pytest.fixture
def server() -> Iterator[InputServer]:
    with input_server() as served:
        yield served


@pytest.fixture(scope="module")
def store() -> Iterator[ObjectServer]:
    with object_server() as served:
        served.reset()
        yield served


class BoxPlays:
    """Plays whose one host is this machine with the tenant root of a supervised box."""

    def __init__(self, box: SupervisedBox, folder: Path) -> None:
        self.box = box
        self.plays = Plays(ROOT / CORES[-1] / "bin", folder)
        self.plays.write_inventory(
            {"all": {"hosts": {"b1": {"ansible_connection": "local", "ansible_python_interpreter": box.python}}}}
        )

    def do(self, *tasks: dict[str, Any], **environment: str) -> list[dict[str, Any]]:
        named = [dict(task, name=f"task {number}", ignore_errors=True, diff=True) for number, task in enumerate(tasks)]
        answers, done = self.plays.play(named, **environment)
        self.printed = done.stdout + done.stderr
        return [answers[task["name"]] for task in named]

    def inputs(self, *entries: dict[str, Any], check: bool = False, **options: Any) -> dict[str, Any]:
        whole = {"tenant_root": str(self.box.root), "inputs": list(entries), "stall_s": 20, "tries": 2, **options}
        return {"tenant.gpu.inputs": dict({"limits": {"min_free_bytes": 0}}, **whole), "check_mode": check}

    def deploy(self) -> None:
        folder = self.box.root / "bin"
        folder.mkdir(parents=True)
        (folder / "supervisor-0123456789ab.pyz").write_bytes(self.box.program.read_bytes())


@pytest.fixture
def plays(tmp_path: Path) -> Iterator[BoxPlays]:
    (tmp_path / "plays").mkdir()
    with supervised_box(tmp_path) as box:
        yield BoxPlays(box, tmp_path / "plays")


def uri(url: str, data: bytes = DATA, dest: str = "data/rows.txt") -> dict[str, Any]:
    return {"uri": url, "sha256": hashlib.sha256(data).hexdigest(), "dest": dest}


def test_the_life_of_inputs_in_plays(plays: BoxPlays, server: InputServer) -> None:
    entry = uri(server.put("/rows", DATA, etag='"1"', cuts=[1000]))
    foretold, refused = plays.do(plays.inputs(entry, check=True), plays.inputs(entry))
    assert foretold["changed"]
    assert "deploy playbook" in refused["msg"]
    assert server.requests == []
    plays.deploy()
    foretold, made, again, checked = plays.do(
        plays.inputs(entry, check=True), plays.inputs(entry), plays.inputs(entry), plays.inputs(entry, check=True)
    )
    assert foretold["changed"]
    assert (foretold["diff"], foretold["inputs"]["state"]) == (made["diff"], "absent")
    assert (made["changed"], made["inputs"]["state"]) == (True, "proven")
    for unchanged in (again, checked):
        assert (unchanged["changed"], unchanged["inputs"]["state"]) == (False, "proven")
        assert unchanged["diff"] == {"before": {}, "after": {}}
    assert Path(made["inputs"]["folder"], "data/rows.txt").read_bytes() == DATA
    assert server.ranges_asked("/rows") == ["", "bytes=1000-"]


def test_a_wrong_hash_fails_the_task_by_name(plays: BoxPlays, server: InputServer) -> None:
    plays.deploy()
    (failed,) = plays.do(plays.inputs(uri(server.put("/rows", DATA + b"x"))))
    assert failed["failed"]
    assert failed["failure"]["kind"] == "evidence_missing"
    assert "input data/rows.txt" in failed["msg"]
    assert "run spec" in failed["failure"]["fix"]


def test_an_object_comes_by_a_presigned_url_and_no_key_reaches_the_box(plays: BoxPlays, store: ObjectServer) -> None:
    store.client.put_object(Bucket=BUCKET, Key="sets/rows.txt", Body=DATA)
    store.client.put_object(Bucket=BUCKET, Key="top.txt", Body=b"top")
    plays.deploy()
    entries = [uri(f"s3://{BUCKET}/sets/rows.txt"), uri(f"s3://{BUCKET}/top.txt", b"top", "top.txt")]
    access = {"endpoint_url": store.url}
    keys = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY, "AWS_DEFAULT_REGION": "us-east-1"}
    sized = {"tenant.gpu.inputs_info": {"inputs": _whole(entries), "object_store": access, "price_per_gb": 1000}}
    made, told = plays.do(plays.inputs(*entries, object_store=access), sized, **keys)
    assert (made["changed"], made["inputs"]["state"]) == (True, "proven"), made
    assert Path(made["inputs"]["folder"], "top.txt").read_bytes() == b"top"
    assert [each["bytes"] for each in told["inputs"]] == [len(DATA), 3]
    assert told["total"]["usd"] == round((len(DATA) + 3) / 1e9 * 1000, 4)
    on_the_box = [path.read_bytes() for path in plays.box.root.rglob("*") if path.is_file()]
    assert not any(SECRET_KEY.encode() in data for data in on_the_box)
    assert "X-Amz-Signature" not in plays.printed + json.dumps(made)
    assert not any(b"X-Amz-Signature" in data for data in on_the_box)


def _whole(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [dict(entry, secret="") for entry in entries]


def test_sizes_are_asked_without_a_box(plays: BoxPlays, server: InputServer) -> None:
    server.put_repository("org/tiny", COMMIT, {"a.bin": DATA, "b.md": b"#"}, {"a.bin"})
    entries = [
        *_whole([uri(server.put("/rows", DATA)), uri(server.url + "/none", dest="n")]),
        *_whole([uri(server.put("/open", DATA, length=False), dest="o")]),
        {"repo": "org/tiny", "type": "model", "revision": COMMIT, "dest": "m", "secret": ""},
    ]
    entries[-1].update(include=[], exclude=["*.md"])
    (told,) = plays.do({"tenant.gpu.inputs_info": {"inputs": entries, "hub_endpoint": server.url}})
    assert [each["bytes"] for each in told["inputs"]] == [len(DATA), None, None, len(DATA)]
    assert "HTTP 404" in told["inputs"][1]["why"]
    assert (told["total"]["bytes"], told["total"]["unknown"], told["total"]["usd"]) == (2 * len(DATA), 2, None)
    assert not [path for method, path, _headers in server.requests if method == "GET" and path in ("/rows", "/open")]
