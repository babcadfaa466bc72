# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Inputs fetched by the real program on a box: every way in which a server can disappoint, and what is left behind."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.box import fetch_order, inputs, process, refusal
from input_server import InputServer, input_server
from supervised_box import SupervisedBox, python38, supervised_box, wait_for
from vanishing import read

pytestmark = pytest.mark.integration
DATA = hashlib.sha256(b"a").digest() * 40000
COMMIT = "1234567890abcdef1234567890abcdef12345678"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def server() -> Iterator[InputServer]:
    with input_server() as served:
        yield served


@pytest.fixture
def box(tmp_path: Path) -> Iterator[SupervisedBox]:
    with supervised_box(tmp_path) as made:
        yield made


@pytest.fixture
def old_box(tmp_path: Path) -> Iterator[SupervisedBox]:
    """A box with the oldest Python that boxes have."""
    with supervised_box(tmp_path, python38()) as made:
        yield made


def uri(url: str, data: bytes = DATA, dest: str = "data/train.bin", **more: Any) -> dict[str, Any]:
    return {"uri": url, "sha256": sha256(data), "dest": dest, **more}


def order(*entries: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"inputs": list(entries), "first_wait_s": 0.01, "reserve_bytes": 0, "reserve_inodes": 0, **more}


def ask(box: SupervisedBox, verb: str, wanted: dict[str, Any]) -> dict[str, Any]:
    return box.verb(verb, "--order-file", "-", stdin=json.dumps(wanted))


def fetch(box: SupervisedBox, wanted: dict[str, Any]) -> dict[str, Any]:
    """Order it and wait for the end; the last status."""
    ask(box, "fetch", wanted)
    entries = fetch_order.check(wanted)["inputs"]
    ended = (fetch_order.PROVEN, fetch_order.FAILED)
    return dict(wait_for("the fetch to end", lambda: _if_in(fetch_order.status(box.layout, entries), ended)))


def _if_in(status: dict[str, Any], states: tuple[str, ...]) -> dict[str, Any] | None:
    return status if status["state"] in states else None


def placed(status: dict[str, Any], dest: str = "data/train.bin") -> bytes:
    return Path(status["folder"], dest).read_bytes()


def test_a_file_is_fetched_proven_shared_and_not_fetched_again(server: InputServer, tmp_path: Path) -> None:
    with supervised_box(tmp_path, python38()) as box:
        wanted = order(uri(server.put("/x", DATA)))
        predicted = box.verb("--check", "fetch", "--order-file", "-", stdin=json.dumps(wanted))
        assert predicted["changed"]
        assert not box.root.exists()
        found = fetch(box, wanted)
        assert (found["state"], placed(found)) == ("proven", DATA)
        assert not os.stat(Path(found["folder"], "data/train.bin")).st_mode & 0o222
        again = ask(box, "fetch", wanted)
        assert not again["changed"]
        # Another list with the same content takes the same blob, from the disk.
        other = fetch(box, order(uri(server.url + "/nowhere", dest="copy.bin")))
        assert placed(other, "copy.bin") == DATA
        assert os.path.samefile(Path(found["folder"], "data/train.bin"), Path(other["folder"], "copy.bin"))
        assert server.ranges_asked("/x") == [""]


def test_it_goes_on_inside_the_file_after_cuts(server: InputServer, box: SupervisedBox) -> None:
    url = server.put("/x", DATA, etag='"v1"', cuts=[100_000, 300_000, 1])
    found = fetch(box, order(uri(url)))
    assert placed(found) == DATA
    assert server.ranges_asked("/x") == ["", "bytes=100000-", "bytes=400000-", "bytes=400001-"]
    assert [headers.get("if-range") for _m, _p, headers in server.requests] == [None, '"v1"', '"v1"', '"v1"']
    assert found["fetched_bytes"] == len(DATA)


def test_a_weak_etag_is_no_validator_but_a_date_is(server: InputServer, box: SupervisedBox) -> None:
    date = "Sat, 21 Nov 2026 10:00:00 GMT"
    fetch(box, order(uri(server.put("/x", DATA, etag='W/"v1"', modified=date, cuts=[5000]))))
    assert server.requests[-1][2]["if-range"] == date


def test_a_file_that_changes_during_the_resume_is_taken_from_its_start(server: InputServer, box: SupervisedBox) -> None:
    old = bytes(reversed(DATA))
    url = server.put("/x", old, etag='"v1"', cuts=[200_000])

    def change(number: int) -> None:
        if number == 2:
            server.pages["/x"].data, server.pages["/x"].etag = DATA, '"v2"'

    server.pages["/x"].before = change
    found = fetch(box, order(uri(url)))
    assert placed(found) == DATA
    assert server.ranges_asked("/x") == ["", "bytes=200000-"]


def test_a_server_that_lies_about_the_version_gives_no_mixture(server: InputServer, box: SupervisedBox) -> None:
    """No validator at all: the pieces of two versions are told apart by the hash alone."""
    url = server.put("/x", bytes(reversed(DATA)), cuts=[200_000])
    server.pages["/x"].before = lambda number: setattr(server.pages["/x"], "data", DATA if number > 1 else DATA[::-1])
    found = fetch(box, order(uri(url)))
    assert placed(found) == DATA
    assert server.ranges_asked("/x") == ["", "bytes=200000-", ""]


def test_a_server_that_ignores_ranges_starts_over(server: InputServer, box: SupervisedBox) -> None:
    found = fetch(box, order(uri(server.put("/x", DATA, etag='"v"', ranges=False, cuts=[7777]))))
    assert placed(found) == DATA
    assert server.ranges_asked("/x") == ["", "bytes=7777-"]


def test_a_server_that_never_gets_through_is_not_paid_for_ever(server: InputServer, box: SupervisedBox) -> None:
    """Every answer brings bytes, and none of them stays."""
    found = fetch(box, order(uri(server.put("/x", DATA, ranges=False, cuts=[500_000] * 99)), tries=3))
    assert found["state"] == "failed"
    assert "from its start 3 times" in found["why"]
    assert server.pages["/x"].asked == 4


def test_a_file_without_a_length_that_was_cut_is_asked_for_again(server: InputServer, box: SupervisedBox) -> None:
    found = fetch(box, order(uri(server.put("/x", DATA, length=False, cuts=[7777]))))
    assert placed(found) == DATA


def test_a_shrunken_file_answers_416_and_is_taken_anew(server: InputServer, box: SupervisedBox) -> None:
    short = DATA[:1000]
    url = server.put("/x", DATA, cuts=[50_000])
    server.pages["/x"].before = lambda number: setattr(server.pages["/x"], "data", short if number > 1 else DATA)
    found = fetch(box, order(uri(url, short)))
    assert placed(found) == short
    assert server.ranges_asked("/x") == ["", "bytes=50000-", ""]


def test_a_wrong_hash_is_refused_by_name_and_nothing_is_placed(server: InputServer, box: SupervisedBox) -> None:
    found = fetch(box, order(uri(server.put("/x", DATA + b"!"))))
    assert (found["state"], found["code"]) == ("failed", refusal.INPUTS)
    assert "data/train.bin" in found["why"]
    assert sha256(DATA) in found["why"]
    assert sha256(DATA + b"!") in found["why"]
    assert not os.path.exists(found["folder"])
    assert server.ranges_asked("/x") == [""]
    # The server is put right, and the same order then works.
    server.put("/x", DATA)
    assert placed(fetch(box, order(uri(server.url + "/x")))) == DATA


@pytest.mark.parametrize("promised", ["decoded", "encoded"])
def test_a_gzip_encoding_nobody_asked_for(server: InputServer, box: SupervisedBox, promised: str) -> None:
    url = server.put("/x", DATA, encoding="gzip", etag='"g"', cuts=[300])
    wanted = DATA if promised == "decoded" else gzip.compress(DATA, mtime=0)
    found = fetch(box, order(uri(url, wanted)))
    assert placed(found) == wanted
    assert server.requests[0][2]["accept-encoding"] == "identity"


def test_a_token_goes_to_its_own_host_only(server: InputServer, box: SupervisedBox) -> None:
    secrets = box.folder / "secrets.env"
    secrets.write_text("HUB_TOKEN=kept-secret\n")
    secrets.chmod(0o600)
    with input_server() as elsewhere:
        server.put("/last", DATA)
        elsewhere.put("/blob", b"", redirect=server.url + "/inner")
        server.put("/inner", b"", redirect="/last")
        url = server.put("/x", b"", redirect=elsewhere.url + "/blob?X-Amz-Signature=abc", token="Bearer kept-secret")
        found = fetch(box, order(uri(url, secret="HUB_TOKEN"), env_file=str(secrets)))
        assert placed(found) == DATA
        assert [headers.get("authorization") for _m, _p, headers in elsewhere.requests] == [None]
        assert server.requests[0][2]["authorization"] == "Bearer kept-secret"
    kept = [path for path in box.root.rglob("*") if path.is_file() and b"kept-secret" in path.read_bytes()]
    assert kept == []


def test_a_refused_token_and_an_endless_redirect_speak(server: InputServer, box: SupervisedBox) -> None:
    denied = fetch(box, order(uri(server.put("/x?sig=hidden", DATA, token="Bearer other"))))
    assert "HTTP 401" in denied["why"]
    assert "secret" in denied["fix"]
    assert "hidden" not in json.dumps(denied)
    endless = fetch(box, order(uri(server.put("/y", b"", redirect="/y"), dest="y")))
    assert "redirects more than" in endless["why"]
    missing = fetch(box, order(uri(server.url + "/nothing", dest="z")))
    assert "HTTP 404" in missing["why"]
    local = fetch(box, order(uri(server.put("/f", b"", redirect="file:///etc/passwd"), dest="f")))
    assert "redirects to file" in local["why"]


def test_a_busy_server_is_asked_again_and_not_for_ever(server: InputServer, box: SupervisedBox) -> None:
    busy = [(503, {"Retry-After": "0"}), (429, {}), (500, {})]
    found = fetch(box, order(uri(server.put("/x", DATA, statuses=list(busy)))))
    assert placed(found) == DATA
    server.put("/y", DATA, statuses=[(503, {})] * 50)
    given_up = fetch(box, order(uri(server.url + "/y", DATA + b"y", dest="y"), tries=3))
    assert "3 tries in a row" in given_up["why"]
    assert server.pages["/y"].asked == 3


def test_a_silent_server_is_left_after_the_stall_time(server: InputServer, old_box: SupervisedBox) -> None:
    box = old_box
    url = server.put("/x", DATA, etag='"v"', cuts=[60_000], release=threading.Event())
    found = fetch(box, order(uri(url), stall_s=3.0))
    assert placed(found) == DATA
    assert server.ranges_asked("/x") == ["", "bytes=60000-"]


def test_a_proxy_from_the_environment_is_used(server: InputServer, box: SupervisedBox) -> None:
    server.put("/behind", DATA)
    env = {"http_proxy": server.url.replace("//", "//ada:pass%20word@"), "no_proxy": ""}
    found = fetch(box, order(uri("http://files.example/behind"), env=env))
    assert placed(found) == DATA
    assert server.requests[0][2]["host"] == "files.example"
    assert server.requests[0][2]["proxy-authorization"] == "Basic YWRhOnBhc3Mgd29yZA=="


def test_the_hook_of_the_platform_names_the_proxy(server: InputServer, box: SupervisedBox, tmp_path: Path) -> None:
    server.put("/behind", DATA)
    hook = tmp_path / "network_turbo"
    hook.write_text(f"export http_proxy={server.url}\nexport OTHER=1\necho it is on\n")
    found = fetch(box, order(uri("http://files.example/behind"), proxy_hook=str(hook), env={"no_proxy": ""}))
    assert placed(found) == DATA
    assert server.requests[0][2]["host"] == "files.example"
    failed = fetch(box, order(uri("http://files.example/behind", dest="b"), proxy_hook=str(tmp_path / "gone")))
    assert "proxy hook" in failed["why"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SupervisedBox]:
    """A box whose data disk has 1 MiB."""
    data = tmp_path / "data"
    data.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(data)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("NOT RUN: mounting a small file system needs root")
    try:
        with supervised_box(tmp_path) as made:
            yield made
    finally:
        subprocess.run(["umount", str(data)], check=True)


@pytest.mark.parametrize("length", [True, False])
def test_a_disk_that_is_full_keeps_what_came_and_goes_on(
    server: InputServer, small_disk: SupervisedBox, length: bool
) -> None:
    """With a length it is refused before the bytes come, without one when the disk ends."""
    ballast = small_disk.root / "ballast"
    small_disk.root.mkdir(parents=True)
    ballast.write_bytes(b"x" * 600_000)
    data = DATA[:700_000]
    wanted = order(uri(server.put("/x", data, etag='"v"', length=length), data))
    found = fetch(small_disk, wanted)
    assert (found["state"], found["code"]) == ("failed", refusal.DISK)
    assert "input data/train.bin" in found["why"]
    assert "larger disk" in found["fix"]
    ballast.unlink()
    assert placed(fetch(small_disk, wanted)) == data


def test_a_disk_without_room_is_refused_before_the_bytes_come(server: InputServer, box: SupervisedBox) -> None:
    found = fetch(box, order(uri(server.put("/x", DATA)), reserve_bytes=2**55))
    assert (found["state"], found["code"]) == ("failed", refusal.DISK)
    assert "bytes are free" in found["why"]
    inodes = fetch(box, order(uri(server.put("/x", DATA)), reserve_inodes=2**49))
    assert "inodes are free" in inodes["why"]
    assert server.requests == []


def test_a_repository_at_a_commit(server: InputServer, old_box: SupervisedBox) -> None:
    box = old_box
    files = {"config.json": b"{}", "model.safetensors": DATA, "sub/vocab.txt": b"a\nb\n", "README.md": b"# hi"}
    server.put_repository("org/tiny", COMMIT, files, {"model.safetensors"})
    with input_server() as store:
        store.put("/lfs", DATA, etag='"lfs"', cuts=[1000])
        server.pages[f"/org/tiny/resolve/{COMMIT}/model.safetensors"].redirect = store.url + "/lfs"
        entry = {"repo": "org/tiny", "revision": COMMIT, "dest": "model", "exclude": ["*.md"]}
        found = fetch(box, order(entry, env={"HF_ENDPOINT": server.url}))
        assert (found["state"], found["files"], found["why"]) == ("proven", 3, "")
        assert found["bytes_total"] == len(DATA) + 6
        assert store.ranges_asked("/lfs") == ["", "bytes=1000-"]
    tree = {str(path.relative_to(found["folder"])) for path in Path(found["folder"]).rglob("*") if path.is_file()}
    assert tree == {"model/config.json", "model/model.safetensors", "model/sub/vocab.txt"}
    assert placed(found, "model/sub/vocab.txt") == b"a\nb\n"


def test_a_small_file_of_a_repository_that_is_not_what_git_named(server: InputServer, box: SupervisedBox) -> None:
    server.put_repository("org/tiny", COMMIT, {"config.json": b"{}", "a.txt": b"aa"}, set())
    server.pages[f"/org/tiny/resolve/{COMMIT}/config.json"].data = b"[]"
    entry = {"repo": "org/tiny", "revision": COMMIT, "dest": "model"}
    found = fetch(box, order(entry, env={"HF_ENDPOINT": server.url}))
    assert "model/config.json" in found["why"]
    assert "git-sha1" in found["why"]


def test_a_repository_that_is_at_another_commit_or_lists_unsafe_names(server: InputServer, box: SupervisedBox) -> None:
    entry = {"repo": "org/tiny", "revision": COMMIT, "dest": "model"}
    wanted = order(entry, env={"HF_ENDPOINT": server.url})
    server.put_repository("org/tiny", COMMIT, {"a": b"a"}, set())
    server.put(f"/api/models/org/tiny/revision/{COMMIT}", json.dumps({"sha": "f" * 40}).encode())
    assert "ffff" in fetch(box, wanted)["why"]
    server.put_repository("org/tiny", COMMIT, {"../evil": b"a"}, set())
    assert "'..'" in fetch(box, wanted)["why"]
    assert not list(box.root.rglob("evil"))


# --- the life of a fetch ------------------------------------------------------------------------------------------


def fetcher_of(box: SupervisedBox) -> process.Identity | None:
    """The living fetcher, by its argument."""
    for identity in box.processes():
        # Others of the box may end meanwhile: the one that was asked to fetch.
        if b"fetcher" in read(Path(f"/proc/{identity.pid}/cmdline")).split(b"\0"):
            return identity
    return None


def held_order(server: InputServer, cut: int = 50_000) -> dict[str, Any]:
    """A download that waits in the middle until the server is told to go on."""
    url = server.put("/x", DATA, etag='"v"', cuts=[cut], release=threading.Event())
    return order(uri(url))


def arrived(box: SupervisedBox, count: int) -> bool:
    partial = Path(inputs.Store(box.layout).partial("sha256", sha256(DATA)))
    return partial.exists() and partial.stat().st_size >= count


def test_two_orders_at_once_are_one_fetch(server: InputServer, box: SupervisedBox) -> None:
    wanted = held_order(server)
    assert ask(box, "fetch", wanted)["inputs"]["state"] == "fetching"
    wait_for("the first bytes", lambda: arrived(box, 50_000))
    assert ask(box, "fetch", wanted)["inputs"]["state"] == "fetching"
    server.pages["/x"].release.set()
    assert placed(fetch(box, wanted)) == DATA
    assert server.ranges_asked("/x") == [""]


def test_a_killed_fetcher_is_continued_where_it_was(server: InputServer, box: SupervisedBox) -> None:
    wanted = held_order(server)
    ask(box, "fetch", wanted)
    wait_for("the first bytes", lambda: arrived(box, 50_000))
    box.kill(fetcher_of(box))
    seen = ask(box, "fetch-status", wanted)
    assert seen["state"] == "interrupted"
    assert placed(fetch(box, wanted)) == DATA
    assert server.ranges_asked("/x") == ["", "bytes=50000-"]


def test_a_boot_continues_the_fetch_and_then_the_run(server: InputServer, box: SupervisedBox) -> None:
    wanted = held_order(server)
    box.register(inputs=wanted["inputs"])
    code, refused = box.ask("start")
    assert (code, refused["kind"]) == (refusal.INPUTS, "inputs")
    assert "data/train.bin" in refused["error"]
    ask(box, "fetch", wanted)
    wait_for("the first bytes", lambda: arrived(box, 50_000))
    box.kill_everything()
    box.verb("resume-all")
    box.await_state("done")
    assert server.ranges_asked("/x") == ["", "bytes=50000-"]
    assert box.run()["inputs"]["state"] == "proven"


def test_the_trainer_finds_its_inputs(server: InputServer, box: SupervisedBox) -> None:
    wanted = order(uri(server.put("/x", DATA)))
    found = fetch(box, wanted)
    code = "import os,sys; open('out.txt','w').write(os.environ['TENANT_INPUTS_DIR']+' '+sys.argv[1])"
    box.register(inputs=wanted["inputs"], command=["python", "-c", code, "{inputs}/data/train.bin"], artifacts=[])
    box.verb("start")
    box.await_state("done")
    folder, argument = (box.workdir / "out.txt").read_text().split()
    assert folder == found["folder"]
    assert Path(argument).read_bytes() == DATA


@pytest.mark.parametrize("how", ["written", "gone"])
def test_an_input_that_was_changed_keeps_the_next_cell_from_starting(
    server: InputServer, box: SupervisedBox, how: str
) -> None:
    wanted = order(uri(server.put("/x", DATA)))
    found = fetch(box, wanted)
    box.register(inputs=wanted["inputs"])
    path = Path(found["folder"], "data/train.bin")
    path.parent.chmod(0o700)
    if how == "written":
        path.chmod(0o600)
        with path.open("r+b") as stream:
            stream.write(b"other")
    else:
        path.unlink()
    code, refused = box.ask("start")
    assert code == refusal.INPUTS
    assert "input data/train.bin" in refused["error"]
    assert box.run()["state"] == "blocked"
    assert box.run()["exit"] == refusal.INPUTS
    # The same order puts it right: what is still whole is taken from the disk.
    assert placed(fetch(box, wanted)) == DATA
    box.verb("start")
    box.await_state("done")
    assert len(server.ranges_asked("/x")) == (2 if how == "written" else 1)


def test_sigterm_leaves_what_can_be_continued(server: InputServer, box: SupervisedBox) -> None:
    wanted = held_order(server)
    ask(box, "fetch", wanted)
    wait_for("the first bytes", lambda: arrived(box, 50_000))
    identity = fetcher_of(box)
    assert identity is not None
    os.kill(identity.pid, signal.SIGTERM)
    server.pages["/x"].release.set()
    wait_for("the fetcher to leave", lambda: process.observe(identity) != process.ALIVE)
    assert placed(fetch(box, wanted)) == DATA


def test_bad_orders_are_refused_with_the_key(box: SupervisedBox) -> None:
    for wanted, says in (
        (order(), "names no inputs"),
        (order({"uri": "ftp://x/y", "sha256": "a" * 64, "dest": "x"}), "uri begins with"),
        (order(uri("http://x/y", dest="../x")), "'..'"),
        (order(uri("http://x/y"), deadline_s=-1), "deadline_s"),
        (order(uri("http://x/y"), urls=["x"]), "urls"),
    ):
        code, refused = box.ask("fetch", "--order-file", "-", stdin=json.dumps(wanted))
        assert code == refusal.USAGE
        assert says in refused["error"]
