# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""mirror_select for conda, torch's wheels and Docker: measured as the tool fetches, proven, written and given back."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from input_server import InputServer, input_server
from mirror_box import WHEEL, MirrorBox, index_probe, mirror, outcomes, put_index, sha256

pytestmark = pytest.mark.integration
PACKAGE = "conda-forge/linux-64/known-1.0.conda"
IMAGE = "library/known"
FRESH = "Bearer t0ken"


def manifest() -> bytes:
    """Of an image whose largest layer is the wheel."""
    layers = (b"the base", WHEEL, b"a label")
    listed = [{"digest": f"sha256:{sha256(each)}", "size": len(each)} for each in layers]
    return json.dumps({"schemaVersion": 2, "layers": listed}).encode()


MANIFEST = f"/v2/{IMAGE}/manifests/sha256:{sha256(manifest())}"
LAYER = f"/v2/{IMAGE}/blobs/sha256:{sha256(WHEEL)}"
REGISTRY = {"way": "registry", "image": IMAGE, "sha256": sha256(manifest())}


def put_conda(server: InputServer, below: str, data: bytes = WHEEL, **options: Any) -> str:
    server.put(f"{below}/cloud/conda-forge/linux-64/repodata.json", b"{}")
    for folder in ("", "/cloud"):
        server.put(f"{below}{folder}/{PACKAGE}", data, **options)
    return server.url + below


def put_registry(server: InputServer, below: str, data: bytes = WHEEL, **options: Any) -> str:
    server.put(f"{below}/v2/", b"{}")
    server.put(below + MANIFEST, manifest())
    server.put(below + LAYER, data, **options)
    return server.url + below


class Kind(NamedTuple):
    """``put`` makes a source, ``file`` is the path of what counts in it, ``written`` what tells the tool of it."""

    put: Callable[..., str]
    probe: dict[str, str]
    file: str
    written: Callable[[MirrorBox], str]


KINDS = {
    "conda": Kind(
        put_conda,
        {"way": "file", "path": f"cloud/{PACKAGE}", "direct_path": PACKAGE, "sha256": sha256(WHEEL)},
        f"/cloud/{PACKAGE}",
        lambda box: (box.folder / "home/conda.yml").read_text(),
    ),
    "torch": Kind(put_index, index_probe(), "/files/known-1.0-py3-none-any.whl", lambda box: box.env_file.read_text()),
    "docker": Kind(
        put_registry, REGISTRY, LAYER, lambda box: (box.folder / "docker/daemon.json").read_text()
    ),
}  # fmt: skip


@pytest.fixture
def server() -> Iterator[InputServer]:
    with input_server() as served:
        yield served


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MirrorBox:
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    # A daemon has its folder.
    (tmp_path / "docker").mkdir()
    return MirrorBox(tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_each_class_uses_the_source_whose_file_is_right_and_goes_back(
    kind: str, server: InputServer, box: MirrorBox
) -> None:
    told = KINDS[kind]
    direct = told.put(server, "/direct", WHEEL + b"!")
    lists = told.put(server, "/lists", statuses=[(404, {})])
    stalls = told.put(server, "/stalls", cuts=[1000], release=threading.Event())
    good = told.put(server, "/good")
    candidates = [mirror(name, url, kind) for name, url in (("lists", lists), ("stalls", stalls), ("good", good))]
    classes = {kind: {"direct": direct, "probe": told.probe}}
    found = box.select("", *candidates, classes=classes)
    assert outcomes(found) == {"direct": "wrong", "lists": "no_file", "stalls": "stalled", "good": "good"}
    assert found["mirrors"]["chosen"][kind]["name"] == "good"
    assert good in told.written(box)
    assert box.select("", *candidates, classes=classes)["changed"] is False
    told.put(server, "/direct")
    server.pages[f"/good{told.file}"].data = b"another file"
    back = box.select("", mirror("good", good, kind), classes=classes, remeasure=True)
    assert outcomes(back) == {"direct": "good", "good": "wrong"}
    assert back["mirrors"]["chosen"][kind]["name"] == "direct"
    assert not (box.folder / "home/conda.yml").exists()
    assert not (box.folder / "docker/daemon.json").exists()
    assert good not in box.env_file.read_text()


def choose(box: MirrorBox, direct: str, *mirrors: dict[str, str], **options: Any) -> dict[str, Any]:
    return box.select("", *mirrors, classes={"docker": {"direct": direct, "probe": REGISTRY}}, **options)


def test_a_registry_gives_anybody_a_token_which_its_store_never_sees(server: InputServer, box: MirrorBox) -> None:
    door = {"token": FRESH, "challenge": f'Bearer realm="{server.url}/token",service="known"'}
    put_registry(server, "/hub")
    for path in ("/v2/", MANIFEST, LAYER):
        server.pages[f"/hub{path}"].token, server.pages[f"/hub{path}"].challenge = door["token"], door["challenge"]
    server.put("/token", json.dumps({"access_token": "t0ken"}).encode())
    with input_server() as store:
        server.pages[f"/hub{LAYER}"].redirect = store.put("/store/layer", WHEEL)
        found = choose(box, f"{server.url}/hub", mirror("none", f"{server.url}/none", "docker"))
        ((_method, path, headers),) = store.requests
    assert outcomes(found) == {"direct": "good", "none": "no_file"}
    (direct, _none) = found["mirrors"]["samples"]
    assert direct["bytes"] == len(manifest()) + len(WHEEL)
    assert (path, "authorization" in headers) == ("/store/layer", False)
    asked = [path for _method, path, _headers in server.requests if path.startswith("/token")]
    assert asked == [f"/token?service=known&scope=repository%3A{IMAGE.replace('/', '%2F')}%3Apull"]


@pytest.mark.parametrize(
    ("challenge", "why"),
    [
        ("", "lets nobody unknown in"),
        ('Basic realm="office"', "lets nobody unknown in"),
        ('Bearer realm="ftp://somewhere/token"', "anybody can listen"),
        ('Bearer realm="/private"', "to nobody unknown"),
        ('Bearer realm="/empty"', "gives none"),
    ],
)
def test_a_registry_for_its_own_people_is_no_mirror(
    challenge: str, why: str, server: InputServer, box: MirrorBox
) -> None:
    put_registry(server, "/direct")
    put_registry(server, "/office")
    page = server.pages["/office/v2/"]
    page.token, page.challenge = FRESH, challenge
    server.put("/private", b"", token="Basic c2VjcmV0")
    server.put("/empty", b"[]")
    found = choose(box, f"{server.url}/direct", mirror("office", f"{server.url}/office", "docker"))
    assert outcomes(found) == {"direct": "good", "office": "no_file"}
    assert why in found["mirrors"]["samples"][1]["why"]


def test_a_manifest_that_names_no_layers_says_what_to_write(server: InputServer, box: MirrorBox) -> None:
    for number, text in enumerate((b"[]", b'{"manifests": []}', b'{"layers": [7, {"digest": "sha256:../x"}]}')):
        probe = {**REGISTRY, "sha256": sha256(text)}
        below = f"/{number}"
        put_registry(server, below)
        server.put(f"{below}/v2/{IMAGE}/manifests/sha256:{sha256(text)}", text)
        classes = {"docker": {"direct": server.url + below, "probe": probe}}
        found = box.select("", mirror("none", f"{server.url}/none", "docker"), classes=classes)
        assert "no manifest of one platform's" in found["mirrors"]["samples"][0]["why"]


def test_docker_is_nobody_s_business_where_there_is_no_daemon_and_never_the_proxy_s(
    server: InputServer, box: MirrorBox
) -> None:
    before = dict(os.environ)
    # The second address is one that no list of loopback entries exempts.
    with input_server() as proxy, input_server("127.0.0.2") as far:
        try:
            direct, near = put_registry(far, "/direct"), put_registry(far, "/near")
            hooked = choose(box, direct, mirror("m", near, "docker"), proxy_hook=proxy.url)
        finally:
            os.environ.clear()
            os.environ.update(before)
        assert proxy.requests == []
    assert {(each["name"], each["route"]) for each in hooked["mirrors"]["samples"]} == {
        ("direct", "plain"), ("m", "plain"),
    }  # fmt: skip
    (box.folder / "docker/daemon.json").unlink(missing_ok=True)
    (box.folder / "docker").rmdir()
    found = choose(box, put_registry(server, ""), mirror("m", server.url, "docker"), remeasure=True)
    assert found["mirrors"]["samples"] == []
    assert server.requests == []
