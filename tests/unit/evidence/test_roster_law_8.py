# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Law 8, attacked: what a box says of its files is read whole or refused, and no path leaves its folder."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import roster, settling
from evidence_world import entry, make_manifest
from hypothesis import given, settings
from hypothesis import strategies as st

# A name in a manifest, and what is said about it.
REFUSED: list[tuple[Any, str]] = [
    ("..", "leads out of its folder"),
    ("../x", "leads out of its folder"),
    ("a/../../x", "leads out of its folder"),
    ("a/..", "leads out of its folder"),
    ("../../../../root/.ssh/authorized_keys", "leads out of its folder"),
    ("/etc/passwd", "is absolute"),
    ("//server/share", "is absolute"),
    ("/", "is absolute"),
    ("", "is empty"),
    (".", "has an empty part"),
    ("a//b", "has an empty part"),
    ("./a", "has an empty part"),
    ("a/./b", "has an empty part"),
    ("a/", "has an empty part"),
    ("-rf", "would take for an option"),
    ("-", "would take for an option"),
    ("--rsh=sh -c id", "would take for an option"),
    ("a/-oProxyCommand=id", "would take for an option"),
    ("a\\b", "backslash"),
    ("..\\..\\x", "backslash"),
    ("C:\\Windows\\x", "backslash"),
    ("a\0b", "control character"),
    ("a\nb", "control character"),
    ("a\rb", "control character"),
    ("a\tb", "control character"),
    ("\x1b[2K\x1b[1Averified", "control character"),
    ("a\x7f", "control character"),
    ("a\x9b31m", "control character"),
    ("a\u2028b", "control character"),
    ("model\u202egpj.pt", "changes how a name reads"),
    ("\u2066a", "changes how a name reads"),
    ("\ufeffmodel.pt", "changes how a name reads"),
    ("caf\udce9", "is not UTF-8"),
    ("\ud800", "is not UTF-8"),
    ("a" * 256, "more than 255 bytes"),
    ("\u00e9" * 128, "more than 255 bytes"),
    ("d/" * 64 + "f", "too long or too deep"),
    ("/".join(["d" * 200] * 6), "too long or too deep"),
    ("a" * 100_000, "too long or too deep"),
    ("manifest.json", "reserved name"),
    ("manifest.json/x", "reserved name"),
    (".tenant-incoming/x", "reserved name"),
    (".tenant-quarantine", "reserved name"),
    (".tenant-lock", "reserved name"),
    ("a/.tenant-partial/b", "reserved name"),
    (".Tenant-Incoming/x", "reserved name"),
    (None, "is not text"),
    (7, "is not text"),
    (True, "is not text"),
    ([], "is not text"),
    ({"path": "a"}, "is not text"),
    (b"a", "is not text"),
]

# Odd, but a file's right: carried as it is, never read as a pattern, a comment, a variable or a template.
CARRIED = [
    "a" * 255,
    "d/" * 63 + "f",
    "#comment",
    ";comment",
    "*",
    "?[a-z]",
    "**/x",
    "~root",
    "$HOME/x",
    "`id`",
    "$(id)",
    "a;b",
    "a|b&c",
    "a'b\"c",
    "{{ lookup('pipe', 'id') }}",
    "%s%n",
    "host:file",
    "rsync:",
    " leading",
    "trailing ",
    "...",
    "..x",
    ".hidden",
    "x.tmp",
    "con",
    "nul.txt",
    "\u4e2d\u6587/\U0001f600.pt",
    "e\u0301",
    "sub/manifest.json",
    "a=b",
    "@file",
    "+x",
    "!x",
]


def test_the_table_is_as_long_as_it_should_be() -> None:
    assert len(REFUSED) >= 40


@pytest.mark.parametrize(("path", "said"), REFUSED, ids=[ascii(path)[:40] for path, _said in REFUSED])
def test_law_8_a_hostile_path_in_a_manifest_is_refused(path: Any, said: str) -> None:
    file = dict(entry("fine", b"x"), path=path)
    with pytest.raises(roster.BadManifest) as caught:
        roster.parse_files([file])
    text = str(caught.value)
    assert said in text
    assert len(text) < 400, "a stranger does not choose how long a message is"
    assert text.isprintable(), "and writes nothing into the log but what can be read"


@pytest.mark.parametrize("path", [path for path, _said in REFUSED if not isinstance(path, bytes)], ids=lambda p: "x")
def test_law_8_a_manifest_with_it_is_refused_too(path: Any) -> None:
    with pytest.raises(roster.BadManifest):
        roster.parse_manifest(
            make_manifest("r1", [entry("fine", b"x")]) | {"files": [dict(entry("f", b""), path=path)]}
        )


@pytest.mark.parametrize("path", CARRIED, ids=[ascii(path)[:40] for path in CARRIED])
def test_an_odd_but_honest_name_is_carried(path: str, tmp_path: Path) -> None:
    (file,) = roster.parse_files([entry(path, b"x")])
    place = tmp_path / path
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(b"x")
    assert file.path == path
    assert settling.check_files(str(tmp_path), [file]) == []
    assert roster.extra_files(str(tmp_path), [file]) == []


@pytest.mark.parametrize(
    "change",
    [
        {"bytes": -1},
        {"bytes": True},
        {"bytes": "7"},
        {"bytes": 1.5},
        {"bytes": 2**63},
        {"bytes": 10**4000},
        {"sha256": "x" * 64},
        {"sha256": "A" * 64},
        {"sha256": None},
        {"role": 1},
        {"loader": None},
    ],
)
def test_a_malformed_entry_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(roster.BadManifest):
        roster.parse_manifest(make_manifest("r1", [dict(entry("a", b"x"), **change)]))


@pytest.mark.parametrize("paths", [["a", "a"], ["a", "a/b"], ["a/b/c", "a/b"]])
def test_colliding_paths_are_refused(paths: list[str]) -> None:
    with pytest.raises(roster.BadManifest, match=r"listed twice|both a file and a folder"):
        roster.parse_manifest(make_manifest("r1", [entry(path, b"x") for path in paths]))


@pytest.mark.parametrize("value", [None, [], "x", 7, {}, {"schema": "gpu-tenant/manifest/v2"}])
def test_what_is_no_manifest_is_refused(value: Any) -> None:
    with pytest.raises(roster.BadManifest):
        roster.parse_manifest(value)


@pytest.mark.parametrize(
    "change",
    [
        {"run_id": "../r"},
        {"project": ""},
        {"box": "-x"},
        {"generation": 0},
        {"generation": True},
        {"generation": "1"},
        {"files": {}},
        {"files": ["a"]},
    ],
)
def test_a_manifest_without_a_usable_identity_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(roster.BadManifest):
        roster.parse_manifest({**make_manifest("r1", [entry("a", b"x")]), **change})


def test_law_1_a_digest_that_does_not_fit_is_refused() -> None:
    record = make_manifest("r1", [entry("a", b"x")])
    record["files"][0]["sha256"] = "0" * 64
    with pytest.raises(roster.BadManifest, match="digest"):
        roster.parse_manifest(record)


@pytest.mark.parametrize(
    ("paths", "twins"),
    [
        (["Model.pt", "model.pt"], [("Model.pt", "model.pt")]),
        (["d/\u00e9", "d/e\u0301"], [("d/e\u0301", "d/\u00e9")]),
        (["stra\u00dfe", "STRASSE"], [("STRASSE", "stra\u00dfe")]),
        (["\u212a", "k"], [("k", "\u212a")]),
        (["Data/x", "data/y"], [("Data", "data")]),
        (["A/b", "a"], [("A", "a")]),
        (["Manifest.JSON"], [("manifest.json", "Manifest.JSON")]),
        (["a/x", "b/x", "A1"], []),
        (["x/A", "y/a"], []),
    ],
)
def test_names_that_fold_to_one_are_paired(paths: list[str], twins: list[tuple[str, str]]) -> None:
    assert roster.folded_twins(roster.parse_files([entry(path, b"x") for path in paths])) == twins


def test_absurd_sizes_are_named() -> None:
    with pytest.raises(roster.BadManifest, match=r"'a' claims 9223372036854775808 bytes"):
        roster.parse_files([dict(entry("a", b"x"), bytes=2**63)])
    with pytest.raises(roster.BadManifest, match="a number without end"):
        roster.parse_files([dict(entry("a", b"x"), bytes=10**9000)])
    huge = [dict(entry(name, b"x"), bytes=2**62) for name in "ab"]
    with pytest.raises(roster.BadManifest, match="in all, more than any filesystem holds"):
        roster.parse_files(huge)


def test_more_files_than_any_run_has_are_refused_before_one_is_looked_at() -> None:
    with pytest.raises(roster.BadManifest, match="lists 1000001 files"):
        roster.parse_files([None] * (roster.MAX_FILES + 1))


@pytest.mark.parametrize("odd", [float("nan"), "\udcff", {1, 2}])
def test_a_value_that_json_cannot_hold_is_refused(odd: Any) -> None:
    record = make_manifest("r1", [entry("a", b"x")])
    record["files"][0]["note"] = odd
    with pytest.raises(roster.BadManifest):
        roster.parse_manifest(record)


def test_the_digest_covers_project_run_generation_and_files_only() -> None:
    record = make_manifest("r1", [entry("a", b"x")])
    assert roster.manifest_digest({**record, "created_at": "later", "totals": {}}) == record["digest"]
    for change in ({"run_id": "r2"}, {"project": "p"}, {"generation": 3}, {"files": []}):
        assert roster.manifest_digest({**record, **change}) != record["digest"]


def test_law_1_every_kind_of_broken_promise_is_named(tmp_path: Path) -> None:
    kinds = ("link", "folder", "pipe", "socket", "device")
    contents = {"right": b"1", "short": b"22", "other": b"33", "gone": b"4", **dict.fromkeys(kinds, b"")}
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
    files = roster.parse_files([entry(name, data) for name, data in contents.items()])
    (tmp_path / "short").write_bytes(b"2")
    (tmp_path / "other").write_bytes(b"3x")
    for name in ("gone", *kinds):
        (tmp_path / name).unlink()
    (tmp_path / "link").symlink_to("right")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to("/dev/null")
    with contextlib.suppress(PermissionError):  # needs root; elsewhere the link stands for it
        os.mknod(tmp_path / "node", 0o600 | stat.S_IFCHR, os.makedev(1, 3))
        os.replace(tmp_path / "node", tmp_path / "device")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(tmp_path / "socket"))
        found = {mismatch.path: mismatch.what for mismatch in settling.check_files(str(tmp_path), files)}
    assert set(found) == set(contents) - {"right"}
    assert "1 bytes, 2 were promised" in found["short"]
    assert "SHA-256" in found["other"]
    assert found["gone"] == "is missing"
    for kind, said in (("link", "a symlink"), ("folder", "a folder"), ("pipe", "a FIFO"), ("socket", "a socket")):
        assert found[kind] == f"is {said}"
    assert found["device"] in ("is a device", "is a symlink")


def test_law_8_a_linked_folder_inside_a_copy_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "f").write_bytes(b"x")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "d").symlink_to(tmp_path / "outside")
    (mismatch,) = settling.check_files(str(tmp_path / "root"), roster.parse_files([entry("d/f", b"x")]))
    assert "symlink" in mismatch.what


def test_extra_files_are_everything_unpromised_but_our_own(tmp_path: Path) -> None:
    for path in ("a", "d/b", "d/c", "manifest.json", "d/manifest.json", ".tenant-incoming/x", ".tenant-quarantine/y"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text("x")
    (tmp_path / "l").symlink_to("d")
    files = roster.parse_files([entry("a", b"x"), entry("d/b", b"x")])
    assert roster.extra_files(str(tmp_path), files) == ["d/c", "d/manifest.json", "l"]


# --- properties ---

# Long, odd and foreign names, and nothing that a folder cannot hold.
NAMES = st.text(st.characters(blacklist_categories=("Cs", "Cc")), min_size=1, max_size=12)
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)


def _usable(contents: dict[str, bytes]) -> bool:
    try:
        roster.parse_files([entry(path, data) for path, data in contents.items()])
    except roster.BadManifest:
        return False
    return True


TREES = st.dictionaries(PATHS, st.binary(max_size=40), min_size=1, max_size=6).filter(_usable)


def _write(root: Path, contents: dict[str, bytes]) -> None:
    for path, data in contents.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)


@contextlib.contextmanager
def tree(contents: dict[str, bytes]) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        _write(Path(folder), contents)
        yield Path(folder)


def _flip(place: Path, data: bytes) -> None:
    place.write_bytes(bytes([data[0] ^ 1]) + data[1:])


def _replace_by_link(place: Path, data: bytes) -> None:
    """The same bytes behind a symlink are not the same file."""
    twin = place.with_name("0 the same bytes")
    twin.write_bytes(data)
    place.unlink()
    place.symlink_to(twin.name)


CHANGES: dict[str, Any] = {
    "flip": _flip,
    "truncate": lambda place, data: place.write_bytes(data[:-1]),
    "append": lambda place, data: place.write_bytes(data + b"x"),
    "remove": lambda place, _data: place.unlink(),
    "rename": lambda place, _data: place.rename(place.with_name("0 elsewhere")),
    "link": _replace_by_link,
}


@settings(max_examples=80)
@given(TREES, st.data())
def test_law_1_any_single_change_of_a_tree_is_found_and_only_it(contents: dict[str, bytes], data: Any) -> None:
    files = roster.parse_files([entry(path, found) for path, found in contents.items()])
    with tree(contents) as root:
        assert settling.check_files(str(root), files) == []
        assert roster.extra_files(str(root), files) == []
        path = data.draw(st.sampled_from(sorted(contents)))
        names = sorted(CHANGES) if contents[path] else ["append", "remove", "rename", "link"]
        change = data.draw(st.sampled_from(names))
        CHANGES[change](root / path, contents[path])
        assert [mismatch.path for mismatch in settling.check_files(str(root), files)] == [path]
        added = [each for each in roster.extra_files(str(root), files) if not each.rpartition("/")[2].startswith("0 ")]
        assert added == []
        assert bool(roster.extra_files(str(root), files)) == (change in ("rename", "link"))


@settings(max_examples=80)
@given(TREES, st.data())
def test_law_1_any_single_change_of_a_manifest_is_found(contents: dict[str, bytes], data: Any) -> None:
    """An edit shows in the digest; one that makes a new digest shows against the files."""
    record = make_manifest("r1", [entry(path, found) for path, found in contents.items()])
    edited = json.loads(json.dumps(record))
    line = data.draw(st.sampled_from(edited["files"]))
    key = data.draw(st.sampled_from(["path", "bytes", "sha256"]))
    if key == "path":
        line["path"] = data.draw(PATHS.filter(lambda path: path not in contents))
    elif key == "bytes":
        line["bytes"] += data.draw(st.sampled_from([-1, 1, 2**40]))
    else:
        line["sha256"] = data.draw(st.binary(min_size=32, max_size=32).map(bytes.hex))
    with pytest.raises(roster.BadManifest):
        roster.parse_manifest(edited)
    edited["digest"] = roster.manifest_digest(edited)
    with tree(contents) as root:
        try:
            files = roster.parse_manifest(edited).files
        except roster.BadManifest:
            return
        assert [mismatch.path for mismatch in settling.check_files(str(root), files)] == [line["path"]]
        assert bool(roster.extra_files(str(root), files)) == (key == "path")


@settings(max_examples=100)
@given(TREES, st.booleans())
def test_a_roster_survives_the_way_there_and_back(contents: dict[str, bytes], executable: bool) -> None:
    lines = [dict(entry(path, found), executable=executable) for path, found in contents.items()]
    files = roster.parse_files(lines)
    assert roster.parse_files(json.loads(json.dumps([file.as_dict() for file in files]))) == files
    record = make_manifest("r1", lines)
    assert roster.parse_manifest(json.loads(json.dumps(record))).files == files
    assert roster.parse_manifest(record).digest == record["digest"]


@settings(max_examples=300)
@given(
    st.text(max_size=30)
    | st.text(st.sampled_from("./\\-~\0\n\u202e .tenant-PRl"), max_size=20)
    | st.lists(st.sampled_from(["..", ".", "", "a", "-x", ".tenant-x", "manifest.json"]), max_size=5).map("/".join)
)
def test_law_8_only_safe_names_pass(path: str) -> None:
    try:
        (file,) = roster.parse_files([entry(path, b"x")])
    except roster.BadManifest:
        return
    parts = file.path.split("/")
    assert os.path.normpath(os.path.join("/root", file.path)) == "/root/" + file.path
    assert not {"", ".", ".."} & set(parts)
    assert not any(part.startswith("-") or part.lower().startswith(".tenant-") for part in parts)
    assert not any(ord(letter) < 32 or 126 < ord(letter) < 160 for letter in file.path)
    assert parts[0] != "manifest.json"
    file.path.encode("utf-8")


@settings(max_examples=60)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda c: st.lists(c) | st.dictionaries(st.text(), c)
    )
)
def test_law_8_no_value_makes_the_parser_raise_anything_else(value: Any) -> None:
    for record in (value, make_manifest("r1", []) | {"files": value}):
        try:
            roster.parse_manifest(record)
        except roster.BadManifest:
            continue
