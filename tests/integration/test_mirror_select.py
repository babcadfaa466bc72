# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""mirror_select against servers that stall, lie, list only or need a proxy: what it uses, writes and gives back."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar
from ansible_collections.tenant.gpu.plugins.module_utils.box import calling
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.mirrors import task
from input_server import InputServer, input_server
from mirror_box import NAME, WHEEL, MirrorBox, index_probe, mirror, outcomes, put_index, sha256
from ssh_team import ssh_team
from supervised_box import python38

pytestmark = pytest.mark.integration
ROOT = Path(__file__).resolve().parents[2]
SPEC = {"id": "r", "command": ["python", "train.py"], "artifacts": [{"glob": "model.pt", "role": "checkpoint"}]}
# A second address of this machine, which no list of loopback entries exempts from a proxy.
ELSEWHERE = "127.0.0.2"


@pytest.fixture
def server() -> Iterator[InputServer]:
    with input_server() as served:
        yield served


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MirrorBox]:
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    before = dict(os.environ)
    yield MirrorBox(tmp_path)
    # The module's process ends after it; this one goes on.
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def dripping() -> Iterator[str]:
    """A server that sends a byte whenever nobody would call it silent yet, for ever."""
    listener = socket.create_server(("127.0.0.1", 0))
    ended = threading.Event()

    def serve() -> None:
        while not ended.is_set():
            try:
                link, _peer = listener.accept()
            except OSError:
                return
            threading.Thread(target=drip, args=(link,), daemon=True).start()

    def drip(link: socket.socket) -> None:
        with link:
            try:
                link.recv(4096)
                link.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
                while not ended.wait(0.05):
                    link.sendall(b"x")
            except OSError:
                return

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/simple"
    ended.set()
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(timeout=600)


def test_of_all_that_disappoint_the_one_that_gives_its_file_is_used(
    server: InputServer, box: MirrorBox, dripping: str
) -> None:
    direct = put_index(server, "/direct", cuts=[10_000], release=threading.Event())
    lies = put_index(server, "/lies", WHEEL + b"!")
    lists = put_index(server, "/lists", statuses=[(404, {})])
    good = put_index(server, "/good")
    candidates = [mirror("lies", lies), mirror("lists", lists), mirror("slow", dripping), mirror("good", good)]
    found = box.select(direct, *candidates, within_s=10.0)
    assert outcomes(found) == {
        "direct": "stalled", "lies": "wrong", "lists": "no_file", "slow": "slow", "good": "good",
    }  # fmt: skip
    assert found["mirrors"]["chosen"]["pip"]["name"] == "good"
    assert box.pip_conf.read_text() == f"[global]\nindex-url = {good}\n"


def test_without_a_mirror_that_works_the_box_goes_back_to_the_direct_source(
    server: InputServer, box: MirrorBox
) -> None:
    direct = put_index(server, "/direct", statuses=[(503, {})])
    good = put_index(server, "/m")
    assert box.select(direct, mirror("m", good))["mirrors"]["chosen"]["pip"]["name"] == "m"
    server.pages[f"/m/files/{NAME}"].data = b"another file"
    again = box.select(direct, mirror("m", good), remeasure=True)
    assert again["mirrors"]["chosen"]["pip"]["name"] == "direct"
    assert not box.pip_conf.exists()
    server.pages.clear()
    nothing = box.select(direct, mirror("m", good), remeasure=True)
    assert nothing["mirrors"]["unusable"] == ["pip"]
    assert nothing["changed"] is False


def test_check_mode_says_what_a_run_then_writes_and_absent_takes_back(server: InputServer, box: MirrorBox) -> None:
    box.pip_conf.parent.mkdir(parents=True)
    box.pip_conf.write_bytes(b"[global]\r\ntimeout = 7")
    wanted = (f"{server.url}/none", mirror("m", put_index(server, "/m")))
    foretold = box.select(*wanted, check=True)
    assert not box.root.exists()
    assert box.pip_conf.read_bytes() == b"[global]\r\ntimeout = 7"
    done = box.select(*wanted)
    assert foretold["diff"] == done["diff"]
    assert foretold["changed"] is done["changed"] is True
    assert box.variables() == {}
    assert box.env_file.stat().st_mode & 0o777 == 0o600
    assert box.select(*wanted, check=True, state="absent")["changed"] is True
    assert box.pip_conf.read_bytes() != b"[global]\r\ntimeout = 7"
    assert box.select(*wanted, state="absent")["changed"] is True
    assert box.pip_conf.read_bytes() == b"[global]\r\ntimeout = 7"
    assert list(box.root.iterdir()) == []
    assert box.select(*wanted, state="absent")["changed"] is False


def test_a_measurement_is_used_again_until_it_ends(server: InputServer, box: MirrorBox) -> None:
    direct, fast = put_index(server, "/direct", statuses=[(503, {})] * 9), put_index(server, "/fast")
    other = put_index(server, "/other")

    def measures(**options: Any) -> bool:
        asked = len(server.requests)
        found = box.select(direct, mirror("fast", fast), mirror("other", other), margin=1000.0, **options)
        assert found["mirrors"]["measured"] is (len(server.requests) > asked)
        return bool(found["mirrors"]["measured"])

    assert measures()
    assert not measures()
    assert not measures(conda_file=str(box.folder / "elsewhere.yml"))
    assert measures(remeasure=True)
    assert measures(no_proxy=[".other"])
    assert measures(valid_s=0.0)
    record = box.root / "mirrors.json"
    known = json.loads(record.read_text())
    record.write_text(json.dumps(dict(known, measured_s=known["measured_s"] + 1000)))
    # A clock that was set back proves nothing.
    assert measures()
    used = json.loads(record.read_text())["chosen"]["pip"]
    calling.note_failure(str(box.root), used["url"], "it stalled")
    assert measures()
    assert json.loads(record.read_text())["chosen"]["pip"]["url"] not in (used["url"], direct)
    assert not measures()


def hook_for(box: MirrorBox, proxy: InputServer, **more: str) -> str:
    path = box.folder / "network_turbo"
    lines = [f"export http_proxy={proxy.url}", *(f"export {name}={text}" for name, text in more.items())]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def test_a_mirror_that_the_proxy_only_slows_down_is_reached_past_it(server: InputServer, box: MirrorBox) -> None:
    with input_server(ELSEWHERE) as near:
        index = put_index(near, "/m")
        put_index(server, "/m", cuts=[10] * 9, release=threading.Event())
        hook = hook_for(box, server, no_proxy="own.example", REQUESTS_CA_BUNDLE="/etc/turbo.pem")
        found = box.select(f"{near.url}/none", mirror("m", index), proxy_hook=hook, no_proxy=[".modelscope.cn"])
    assert found["mirrors"]["chosen"]["pip"]["route"] == "plain"
    assert found["mirrors"]["pip_args"] == '--proxy ""'
    told = box.variables()
    assert told[calling.HOOK] == hook
    assert told["no_proxy"] == told["NO_PROXY"]
    assert {ELSEWHERE, "127.0.0.1", "localhost", ".modelscope.cn"} <= set(told["no_proxy"].split(","))
    environment = found["mirrors"]["environment"]
    assert environment["http_proxy"] == server.url
    assert environment["REQUESTS_CA_BUNDLE"] == "/etc/turbo.pem"
    assert {"own.example", ELSEWHERE} <= set(environment["no_proxy"].split(","))


def test_what_only_the_proxy_reaches_stays_behind_it(server: InputServer, box: MirrorBox) -> None:
    with input_server(ELSEWHERE) as far:
        direct = f"{far.url}/direct/simple"
        put_index(far, "/direct", statuses=[(503, {})] * 9)
        put_index(server, "/direct")
        found = box.select(direct, proxy_hook=hook_for(box, server))
    assert found["mirrors"]["chosen"]["pip"] == {"name": "direct", "url": direct, "route": "proxied"}
    assert found["mirrors"]["pip_args"] == ""
    told = box.variables()
    assert ELSEWHERE not in told["no_proxy"]
    # As on AutoDL: whatever else was measured, and also where the Hub was not.
    assert (told["HF_HUB_DISABLE_XET"], told["HF_HUB_ENABLE_HF_TRANSFER"]) == ("1", "0")
    assert not box.pip_conf.exists()


def test_a_hook_that_cannot_be_sourced_is_refused_by_name(box: MirrorBox) -> None:
    with pytest.raises(TenantFailure, match="network_turbo") as caught:
        box.select("http://127.0.0.1:9/simple", proxy_hook=str(box.folder / "network_turbo"))
    assert caught.value.kind == "config"


def test_the_hub_is_told_before_any_import_and_its_accelerators_are_off(server: InputServer, box: MirrorBox) -> None:
    path = "/org/r/resolve/main/model.bin"
    lists_only = server.put("/lists" + path, b"", redirect=f"{server.url}/no-such-store")
    server.put("/m" + path, WHEEL)
    probe = {"path": path, "sha256": sha256(WHEEL)}
    candidates = [
        mirror("lists", lists_only[: -len(path)], "hf"),
        mirror("m", f"{server.url}/m", "hf"),
        mirror("ms", "https://modelscope.cn", "modelscope"),
    ]
    classes = {"hf": {"direct": f"{server.url}/hub", "probe": probe}}
    found = box.select("", *candidates, classes=classes)
    assert outcomes(found) == {"direct": "no_file", "lists": "no_file", "m": "good"}
    assert box.variables() == {
        "HF_ENDPOINT": f"{server.url}/m",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_ENABLE_HF_TRANSFER": "0",
        calling.HUB_ENDPOINTS: f"plain={server.url}/m",
        calling.MODELSCOPE: "https://modelscope.cn",
    }


def git(folder: Path, *words: str) -> str:
    own = {
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_AUTHOR_DATE": "1700000000 +0000",
        "GIT_COMMITTER_DATE": "1700000000 +0000",
    }
    names = ["-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "init.defaultBranch=master"]
    command = ["git", "-C", str(folder), *names, *words]
    return subprocess.run(command, env={**os.environ, **own}, check=True, capture_output=True, text=True).stdout.strip()


def test_git_proves_a_commit_itself(server: InputServer, box: MirrorBox) -> None:
    work = box.folder / "work"
    work.mkdir()
    git(work, "init", "-q")
    (work / "README").write_text("hello\n")
    git(work, "add", ".")
    git(work, "commit", "-q", "-m", "one")
    commit = git(work, "rev-parse", "HEAD")
    git(work, "update-server-info")
    for path in (work / ".git").rglob("*"):
        name = path.relative_to(work / ".git").as_posix()
        if path.is_file():
            server.put(f"/good/r.git/{name}", path.read_bytes())
            if not name.startswith("objects/"):
                server.put(f"/lists/r.git/{name}", path.read_bytes())
    probe = {"way": "git", "path": "r.git", "ref": "refs/heads/master", "commit": commit}
    classes = {"git": {"direct": f"{server.url}/lists", "probe": probe}}
    found = box.select("", mirror("m", f"{server.url}/good", "git"), classes=classes)
    assert outcomes(found) == {"direct": "no_file", "m": "good"}
    told = box.variables()
    assert told["GIT_CONFIG_KEY_0"] == f"url.{server.url}/good/.insteadOf"
    assert told["GIT_CONFIG_VALUE_0"] == f"{server.url}/lists/"
    # And git follows it.
    words = ["git", "ls-remote", f"{server.url}/lists/r.git", "refs/heads/master"]
    asked = len(server.requests)
    subprocess.run(words, env={**os.environ, **told}, check=True, capture_output=True)
    assert all(path.startswith("/good/") for _method, path, _headers in server.requests[asked:])
    classes["git"]["probe"] = dict(probe, commit="f" * 40)
    assert outcomes(box.select("", mirror("m", f"{server.url}/good", "git"), classes=classes)) == {
        "direct": "no_file", "m": "wrong",
    }  # fmt: skip


def put_archive(server: InputServer, below: str, suite: str, packages: bytes, told: bytes | None = None) -> str:
    name = "main/binary-amd64/Packages.gz"
    hashed = hashlib.sha256(told or packages).hexdigest()
    for arch in ("amd64", "arm64"):
        path = name.replace("amd64", arch)
        server.put(f"{below}/dists/{suite}/{path}", packages)
    lines = [f" {hashed} {len(packages)} {name.replace('amd64', arch)}" for arch in ("amd64", "arm64")]
    server.put(f"{below}/dists/{suite}/Release", "\n".join(["Suite: x", "SHA256:", *lines, ""]).encode())
    return server.url + below


def test_the_boxs_own_package_lists_go_to_a_mirror_and_back(server: InputServer, box: MirrorBox) -> None:
    packages = os.urandom(60_000)
    archive = put_archive(server, "/archive", "known", packages, told=b"a list that is out of step")
    good = put_archive(server, "/good", "known", packages)
    (box.apt / "sources.list.d").mkdir(parents=True)
    plain = box.apt / "sources.list"
    plain.write_text(f"deb {archive} known main # ours\n")
    deb822 = box.apt / "sources.list.d" / "ubuntu.sources"
    deb822.write_text(f"Types: deb\nURIs: {archive}/\nSuites: known\n")
    (box.apt / "sources.list.d" / "cuda.list").write_text("deb https://cuda.example/x /\n")
    candidate = mirror("m", good, "apt", archive=archive, suite="known")
    found = box.select("", candidate)
    assert outcomes(found) == {"direct": "wrong", "m": "good"}
    assert plain.read_text() == f"deb {good} known main # ours\n"
    assert deb822.read_text() == f"Types: deb\nURIs: {good}/\nSuites: known\n"
    assert box.select("", candidate)["changed"] is False
    box.select("", candidate, state="absent")
    assert plain.read_text() == f"deb {archive} known main # ours\n"
    assert (box.apt / "sources.list.d" / "cuda.list").read_text() == "deb https://cuda.example/x /\n"


def test_it_runs_on_the_oldest_python(server: InputServer, box: MirrorBox) -> None:
    wanted = box.params(f"{server.url}/none", mirror("m", put_index(server, "/m")))
    code = (
        "import json, sys\n"
        "from ansible_collections.tenant.gpu.plugins.module_utils.mirrors import task\n"
        "print(json.dumps(task.act(json.load(sys.stdin), False)))\n"
    )
    environment = {"PYTHONPATH": str(ROOT / "collections"), "PATH": os.environ["PATH"], "HOME": str(box.folder)}
    done = subprocess.run(
        [python38(), "-c", code], input=json.dumps(wanted), env=environment,
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["mirrors"]["chosen"]["pip"]["name"] == "m"


def asked_by_the_role(**variables: Any) -> tuple[bool, dict[str, Any]]:
    """Whether the role measures at all, and what its task then asks of the module."""
    loader = DataLoader()
    files = [f"{kind}/main.yml" for kind in ("defaults", "vars")]
    role = [loader.load_from_file(str(ROOT / "roles/mirrors" / file), trusted_as_template=True) for file in files]
    (measure, *_others) = loader.load_from_file(
        str(ROOT / "roles/mirrors/tasks/measured.yml"), trusted_as_template=True
    )
    templar = Templar(loader=loader, variables={**role[0], **role[1], **variables})
    return templar.template(role[1]["__mirrors_wanted"]), templar.template(measure["tenant.gpu.mirror_select"])


@pytest.mark.parametrize("platform", ["autodl", "vast"])
@pytest.mark.parametrize(("direct", "winner"), [(WHEEL, "direct"), (b"a lie", "m")])
def test_where_a_box_stands_decides_nothing(
    platform: str, direct: bytes, winner: str, server: InputServer, box: MirrorBox
) -> None:
    """The mirror is good in either case, and nobody is told which of the two is used but by what they give."""
    profile = yaml.safe_load((ROOT / f"inventories/profiles/group_vars/{platform}.yml").read_text())
    classes = {"pip": {"direct": put_index(server, "/direct", direct), "probe": index_probe()}}
    candidates = [mirror("m", put_index(server, "/m"))]
    told = {"mirrors_root": str(box.root), "mirrors_candidates": candidates, "mirrors_classes": classes}
    asked, found = [], []
    for china in (True, False, None):
        more = {"platform_china_mirrors": china, "platform_proxy_hook": "", "mirrors_remeasure": True}
        asked.append(asked_by_the_role(**{**profile, **told, **more}))
        # A tie of two that are equally near: the direct one is used, so that no other reason can be hidden in it.
        places = {"pip_conf": str(box.pip_conf), "apt_dir": str(box.apt), "margin": 1000.0}
        result = task.act({**box.params(""), **asked[-1][1], **places}, False)
        found.append(result["mirrors"]["chosen"]["pip"]["name"])
    assert asked == [(True, asked[0][1])] * 3
    assert found == [winner] * 3


def test_the_role_costs_one_remote_execution_on_a_converged_box(server: InputServer, tmp_path: Path) -> None:
    home = tmp_path / "home"
    variables = {
        "mirrors_candidates": [mirror("m", put_index(server, "/m"))],
        "mirrors_classes": {
            "pip": {
                "direct": f"{server.url}/none",
                "probe": {"way": "index", "project": "known", "file": NAME, "sha256": sha256(WHEEL)},
            }
        },
        "mirrors_pip_conf": str(home / "pip.conf"),
        "mirrors_apt_dir": str(home / "apt"),
    }
    with ssh_team(tmp_path, SPEC) as team:
        team.rent("one", **variables)
        first = team.play("mirrors", "one", "-v")
        assert "changed=1" in first
        assert (home / "pip.conf").read_text().endswith(f"index-url = {server.url}/m/simple\n")
        again = team.play("mirrors", "one", "-vvv")
        assert "changed=0" in again
        assert 1 <= again.count("SSH: EXEC") <= 2
        absent = team.play("mirrors", "one", "-e", "mirrors_state=absent")
        assert "changed=1" in absent
        assert not home.exists()
