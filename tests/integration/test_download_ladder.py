# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The ladder of a repository's files by the real fetcher, and the box's environment in its fetcher and trainers."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box import calling, fetch_order, inputs
from input_server import InputServer, input_server
from supervised_box import SupervisedBox, supervised_box, wait_for

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.integration
DATA = hashlib.sha256(b"ladder").digest() * 20000
COMMIT = "abcdefabcdefabcdefabcdefabcdefabcdefabcd"
RESOLVED = f"/org/tiny/resolve/{COMMIT}/model.bin"
ENTRY = {"repo": "org/tiny", "revision": COMMIT, "dest": "model"}


@pytest.fixture
def servers() -> Iterator[tuple[InputServer, InputServer]]:
    """A mirror of the Hub, and the Hub."""
    with input_server() as first, input_server() as second:
        for server in (first, second):
            server.put_repository("org/tiny", COMMIT, {"model.bin": DATA}, {"model.bin"})
        yield first, second


@pytest.fixture
def box(tmp_path: Path) -> Iterator[SupervisedBox]:
    with supervised_box(tmp_path) as made:
        yield made


def told(box: SupervisedBox, **variables: str) -> None:
    """What mirror_select left there."""
    box.root.mkdir(parents=True, exist_ok=True)
    path = box.root / calling.FILE
    path.write_text("".join(f"{name}={text}\n" for name, text in variables.items()))
    path.chmod(0o600)
    Path(calling.record_path(str(box.root))).write_text("{}")


def fetch(box: SupervisedBox, **more: Any) -> dict[str, Any]:
    wanted = {
        "inputs": [ENTRY], "first_wait_s": 0.01, "reserve_bytes": 0, "reserve_inodes": 0, "stall_s": 3.0, "tries": 3,
    }  # fmt: skip
    wanted.update(more)
    box.verb("fetch", "--order-file", "-", stdin=json.dumps(wanted))
    entries = fetch_order.check(wanted)["inputs"]

    def ended() -> dict[str, Any] | None:
        found = fetch_order.status(box.layout, entries)
        return found if found["state"] in (fetch_order.PROVEN, fetch_order.FAILED) else None

    return dict(wait_for("the fetch to end", ended))


def test_a_mirror_that_stalls_is_gone_on_with_elsewhere_inside_the_file(
    servers: tuple[InputServer, InputServer], box: SupervisedBox
) -> None:
    mirror, direct = servers
    mirror.pages[RESOLVED].cuts = [100_000]
    mirror.pages[RESOLVED].release = threading.Event()
    told(box, HF_ENDPOINT=mirror.url, TENANT_HF_ENDPOINTS=f"plain={mirror.url} plain={direct.url}")
    # Only the first request is answered, and half: the others find nobody.
    mirror.pages[RESOLVED].before = lambda number: mirror.pages[RESOLVED].statuses.extend([(503, {})] * (number > 1))
    found = fetch(box)
    assert (found["state"], found["why"]) == ("proven", "")
    assert Path(found["folder"], "model/model.bin").read_bytes() == DATA
    assert direct.ranges_asked(RESOLVED) == ["bytes=100000-"]
    failed = json.loads(Path(calling.failures_path(str(box.root))).read_text())
    assert failed["urls"] == [mirror.url]


def test_a_mirror_that_lies_is_left_and_modelscope_is_proven_by_the_hubs_hash(
    servers: tuple[InputServer, InputServer], box: SupervisedBox
) -> None:
    mirror, modelscope = servers
    modelscope.pages.clear()
    modelscope.put("/models/org/tiny/resolve/master/model.bin", DATA)
    mirror.pages[RESOLVED].data = DATA[::-1]
    told(box, TENANT_HF_ENDPOINTS=f"plain={mirror.url}", TENANT_MODELSCOPE=modelscope.url)
    found = fetch(box)
    assert (found["state"], found["why"]) == ("proven", "")
    assert Path(found["folder"], "model/model.bin").read_bytes() == DATA
    modelscope.pages["/models/org/tiny/resolve/master/model.bin"].data = b"another revision"
    failed = fetch(box, inputs=[dict(ENTRY, dest="other", include=["model.bin"])])
    # The blob that was proven is used again: nobody is asked for it.
    assert failed["state"] == "proven"


def test_when_no_rung_holds_each_says_why(servers: tuple[InputServer, InputServer], box: SupervisedBox) -> None:
    mirror, modelscope = servers
    mirror.pages[RESOLVED].data = DATA[::-1]
    told(box, TENANT_HF_ENDPOINTS=f"plain={mirror.url}", TENANT_MODELSCOPE=modelscope.url)
    found = fetch(box)
    assert found["state"] == "failed"
    assert "not " + hashlib.sha256(DATA).hexdigest() in found["why"]
    assert "404" in found["why"]


def test_the_list_comes_from_the_next_endpoint_too(
    servers: tuple[InputServer, InputServer], box: SupervisedBox
) -> None:
    mirror, direct = servers
    mirror.pages.clear()
    told(box, HF_ENDPOINT=mirror.url, TENANT_HF_ENDPOINTS=f"plain={mirror.url} plain={direct.url}")
    assert fetch(box)["state"] == "proven"


@pytest.fixture
def aria2_from() -> int:
    """The size from which on the real aria2 is asked. Absent: an error in CI, NOT RUN elsewhere."""
    if shutil.which("aria2c"):
        return len(DATA) - 1
    reason = "NOT RUN: no aria2c; install the package aria2"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def fetch_large(box: SupervisedBox, server: InputServer, least: int) -> dict[str, Any]:
    """The fetcher itself in a process of its own, for which a file is very large from ``least`` bytes on."""
    told(box, TENANT_HF_ENDPOINTS=f"plain={server.url}")
    wanted = {"inputs": [ENTRY], "first_wait_s": 0.01, "reserve_bytes": 0, "reserve_inodes": 0, "tries": 3}
    order = fetch_order.check({**wanted, "stall_s": 300.0})
    digest = inputs.digest(order["inputs"])
    fetch_order.write(box.layout, digest, order)
    code = (
        "import sys\n"
        "from ansible_collections.tenant.gpu.plugins.module_utils.box import fetcher, ladder, layout\n"
        f"ladder.LARGE_BYTES = {least}\n"
        "fetcher.Fetcher(layout.Layout(sys.argv[1]), sys.argv[2]).main(lambda: None)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "collections")}
    subprocess.run([sys.executable, "-c", code, str(box.root), digest], env=environment, check=False, timeout=600)
    return fetch_order.status(box.layout, order["inputs"])


def begun_by_aria2(server: InputServer) -> list[int]:
    """Where in the file it began, each time it asked for a part; first it asks for the whole, to know the size."""
    asked = [headers for _method, path, headers in server.requests if path == RESOLVED]
    ranges = [headers.get("range", "") for headers in asked if headers["user-agent"].startswith("aria2")]
    return [int(told.removeprefix("bytes=").partition("-")[0]) for told in ranges if told]


def leave_to_aria2(server: InputServer, cut: int = 0) -> None:
    """The plain download is cut after 100,000 bytes and then refused, and aria2 after ``cut`` of what lacks, once."""
    page = server.pages[RESOLVED]
    page.cuts = [100_000]

    def before(number: int) -> None:
        headers = server.requests[-1][2]
        if number > 1 and not headers["user-agent"].startswith("aria2"):
            page.statuses.append((503, {}))
        elif cut and "range" in headers and len(begun_by_aria2(server)) == 1:
            page.cuts.append(cut)

    page.before = before


def test_the_real_aria2_goes_on_with_a_large_file_through_a_cut_of_its_own(
    servers: tuple[InputServer, InputServer], box: SupervisedBox, aria2_from: int
) -> None:
    leave_to_aria2(servers[0], cut=300_000)
    found = fetch_large(box, servers[0], aria2_from)
    assert (found["state"], found["why"]) == ("proven", "")
    assert Path(found["folder"], "model/model.bin").read_bytes() == DATA
    # Its blocks are of 16 KiB, so it takes a little again, and never the beginning.
    first, *later = begun_by_aria2(servers[0])
    assert 0 < first <= 100_000
    assert later
    assert all(first < each <= first + 300_000 for each in later)
    assert not list((box.root / "inputs").rglob("*aria2*"))


def test_the_real_aria2_begins_anew_where_nobody_goes_on_inside_a_file(
    servers: tuple[InputServer, InputServer], box: SupervisedBox, aria2_from: int
) -> None:
    leave_to_aria2(servers[0])
    servers[0].pages[RESOLVED].ranges = False
    found = fetch_large(box, servers[0], aria2_from)
    assert (found["state"], found["why"]) == ("proven", "")
    assert Path(found["folder"], "model/model.bin").read_bytes() == DATA


def test_what_the_real_aria2_brings_is_proven_as_anything_else(
    servers: tuple[InputServer, InputServer], box: SupervisedBox, aria2_from: int
) -> None:
    leave_to_aria2(servers[0])
    servers[0].pages[RESOLVED].data = DATA[:100_000] + DATA[100_000:][::-1]
    found = fetch_large(box, servers[0], aria2_from)
    assert found["state"] == "failed"
    assert f"not {hashlib.sha256(DATA).hexdigest()}" in found["why"]
    assert begun_by_aria2(servers[0])
    assert not (box.root / "inputs/sets").exists()


def test_a_trainer_finds_the_environment_of_its_box(box: SupervisedBox, tmp_path: Path) -> None:
    hook = tmp_path / "network_turbo"
    hook.write_text("export https_proxy=http://10.0.0.1:80 no_proxy=modelscope.com\n")
    told(
        box, HF_ENDPOINT="https://m.example", HF_HOME="/data/hf", TENANT_PROXY_HOOK=str(hook), no_proxy=".modelscope.cn"
    )
    code = "import json,os; json.dump(dict(os.environ), open('out.json','w'))"
    box.register(command=["python", "-c", code], artifacts=[], env={"HF_HOME": "/mine"})
    box.verb("start")
    box.await_state("done")
    found = json.loads((box.workdir / "out.json").read_text())
    assert (found["HF_ENDPOINT"], found["HF_HOME"], found["https_proxy"]) == (
        "https://m.example", "/mine", "http://10.0.0.1:80",
    )  # fmt: skip
    assert {"modelscope.com", ".modelscope.cn", "localhost"} <= set(found["NO_PROXY"].split(","))
