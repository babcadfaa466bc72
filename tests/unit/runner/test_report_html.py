# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The report as one file: whole without a network, true to the records, and deaf to what strangers put into them."""

from __future__ import annotations

import hashlib
import html.parser
import json
import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import roster
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.journal import Journal
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import BoxIdentity, StateStore
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_tenant import hosts, report, report_drawing, report_html, report_story
from gpu_tenant.cli import cli
from gpu_tenant.hosts import BoxHost
from gpu_tenant.workspace import Workspace

HOSTILE = "</title><script>alert(1)</script><img src=http://evil.example/x onerror=alert(2)> {{ 7*7 }} \u202egpj\x1b[2J"
VOID = {"meta", "br"}


class Page(html.parser.HTMLParser):
    """Every tag and attribute of a page, its text, and whether it is nested as it should be."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.said = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.said += data


def bring_home(folder: Path, run: str, lines: list[dict[str, Any]], cell: str = "main") -> str:
    """A results folder with the metrics of one attempt, as a harvest leaves it; its digest."""
    path = folder / cell / "a1" / "metrics.jsonl"
    path.parent.mkdir(parents=True)
    data = "".join(json.dumps(line) + "\n" for line in lines).encode()
    path.write_bytes(data)
    entry = {
        "path": f"{cell}/a1/metrics.jsonl",
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "role": "metrics",
        "loader": "none",
    }
    record = {"schema": records.schema("manifest"), "project": "p", "run_id": run, "box": "a", "generation": 1}
    record["files"] = [entry]
    record["digest"] = roster.manifest_digest(record)
    records.write_record(str(folder / roster.MANIFEST_NAME), "manifest", record)
    return str(record["digest"])


@pytest.fixture
def team(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BoxHost:
    monkeypatch.delenv("GPU_TENANT_DATABASE_URL", raising=False)
    store = StateStore(str(tmp_path / "state"))
    identity = BoxIdentity("p", "a", 1, "41")
    journal = Journal(store)
    journal.append("effect", "rent", **identity.as_dict(), price_per_hour=0.5, stopped_per_hour=0.1)
    journal.append("effect", "pull", **identity.as_dict(), run_id="mnist", step=120)
    journal.append("intent", "recover", **identity.as_dict(), run_id="mnist", rung="next_offer", why="it was outbid")
    store.update_box("p", "a", 1, provider_id="41", platform="vast", created_at=records.utc_now())
    digest = bring_home(tmp_path / "home", "mnist", [{"step": n, "loss": 2.0 / n} for n in range(1, 50)])
    receipt = {**identity.as_dict(), "run_id": "mnist", "complete": True, "files": 1, "bytes": 900}
    receipt |= {"verified_at": records.utc_now(), "checks": [{"path": "x", "ok": True}], "manifest_digest": digest}
    receipt["copies"] = [{"uri": (tmp_path / "home").as_uri()}]
    records.write_record(store.receipt_path("p", "mnist", "a", 1), "receipt", receipt)
    return BoxHost("a", {"tenant_project": "p", "tenant_state_dir": store.root, "platform_driver": ""})


def drawn(team: BoxHost, history: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    return report.draw_up("p", [team], lambda box: pytest.fail("no account is asked"), history=history or [])


def test_it_tells_what_happened_how_it_learned_and_what_came_home(team: BoxHost) -> None:
    at = records.utc_now()
    told = drawn(team, [{"at": at, "kind": "interruption", "box": "a", "generation": 1, "why": "outbid", "step": 130}])
    assert json.loads(json.dumps(told)) == told
    assert {event["kind"] for event in told["events"]} == {"act", "checkpoint", "recovery", "interruption", "receipt"}
    page = Page(report_html.page(told))
    for words in ("checkpoints came home (step 120)", "next offer: it was outbid", "outbid (step 130)", "1 loaded"):
        assert words in page.said
    assert "polyline" in page.tags
    assert "rect" in page.tags
    assert told["curves"][0]["points"][0] == [1.0, 2.0]


def test_the_file_needs_nothing_but_itself(team: BoxHost) -> None:
    text = report_html.page(drawn(team))
    page = Page(text)
    assert not {"script", "link", "img", "iframe", "object", "embed", "base", "form"} & set(page.tags)
    assert not [name for name, _value in page.attributes if name in ("src", "href", "xlink:href") or name[:2] == "on"]
    assert "url(" not in text
    assert "@import" not in text
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in page.attributes


def hostile_report(text: str) -> dict[str, Any]:
    at = "2026-11-21T10:00:00Z"
    interval = {"state": text, "since": at, "until": "2026-11-21T12:00:00Z", "per_hour": None, "dollars": None}
    machine = {"box": text, "generation": 1, "provider_id": text, "platform": text, "runs": [text], "state": text}
    machine |= {"intervals": [interval], "accrued": None, "billed": None, "why_unknown": text}
    receipt = {"run": text, "box": text, "generation": text, "complete": False, "lacks": [text], "files": text}
    receipt |= {"bytes": text, "loaded": 0, "not_pulled": {"files": 1, "bytes": text}, "copies": [text]}
    receipt |= {"verified_at": text, "manifest_digest": text}
    curve = {"run": text, "cell": text, "box": text, "generation": text, "attempt": text, "points": [[0, 1], [1, 0.5]]}
    one = {"machines": 1, "known": 0.0, "unknown": 1, "total": None}
    event = {"at": at, "kind": text, "box": text, "generation": 1, "run": text, "text": text}
    told = {"project": text, "at": at, "machines": [machine], "sums": {text: {text: one}}, "notes": [text]}
    return {**told, "events": [event], "receipts": [receipt], "curves": [curve]}


def test_no_word_of_a_stranger_becomes_markup() -> None:
    page = Page(report_html.page(hostile_report(HOSTILE)))
    assert page.tags == TAME.tags
    assert [name for name, _value in page.attributes] == [name for name, _value in TAME.attributes]
    assert "{{ 7*7 }}" in page.said
    assert "\u202e" not in page.said
    assert "\x1b" not in page.said


TAME = Page(report_html.page(hostile_report("tame")))


@settings(max_examples=25)
@given(text=st.text(st.characters(), max_size=60))
def test_any_text_leaves_the_page_as_it_is(text: str) -> None:
    page = report_html.page(hostile_report(text))
    assert page.encode("utf-8")
    assert Page(page).tags == TAME.tags


@settings(max_examples=50)
@given(
    points=st.lists(
        st.tuples(st.integers(0, 10**6).map(float), st.floats(allow_nan=False, allow_infinity=False)), min_size=1
    )
)
def test_any_losses_are_drawn_within_their_frame(points: list[tuple[float, float]]) -> None:
    kept = report_story.thinned(points, 8)
    assert len(kept) <= 8
    extremes = {point[1] for point in kept}
    assert {min(value for _step, value in points), max(value for _step, value in points)} <= extremes
    [drawing] = report_drawing.losses(
        [{"run": "r", "cell": "c", "box": "b", "generation": 1, "attempt": "1", "points": kept}]
    )
    for place in drawing["lines"][0]["path"].split():
        x, y = map(float, place.split(","))
        assert 0 <= x <= drawing["width"]
        assert 0 <= y <= drawing["height"]


def test_metrics_that_are_a_link_or_nonsense_are_not_read(team: BoxHost, tmp_path: Path) -> None:
    metrics = tmp_path / "home/main/a1/metrics.jsonl"
    secret = tmp_path / "secret.jsonl"
    secret.write_text('{"step": 1, "loss": 42.0}\n')
    metrics.unlink()
    metrics.symlink_to(secret)
    assert drawn(team)["curves"] == []
    metrics.unlink()
    os.mkfifo(metrics)
    assert drawn(team)["curves"] == []
    metrics.unlink()
    metrics.write_bytes(b'{"step": 1, "loss": NaN}\n{"step": true, "loss": 1}\nnot json\n{"step": 2, "loss": 1e999}\n')
    assert drawn(team)["curves"] == []
    (tmp_path / "home" / roster.MANIFEST_NAME).write_text("{}")
    told = drawn(team)
    assert any("no losses of mnist on a" in note for note in told["notes"])
    assert "no losses of mnist" in Page(report_html.page(told)).said


def test_lines_without_a_time_and_other_boxes_are_left_out() -> None:
    lines = [
        {"kind": "effect", "verb": "rent", "box": "a", "at": "yesterday"},
        {"kind": "effect", "verb": "rent", "box": "z", "at": "2026-11-21T10:00:00Z"},
        {"kind": "intent", "verb": "rent", "box": "a", "at": "2026-11-21T10:00:00Z"},
        {"kind": "effect", "verb": "stop", "box": "a", "at": "2026-11-21T10:00:00Z", "generation": True},
    ]
    [event] = report_story.events(lines, [], [], ["a"])
    assert (event["text"], event["generation"]) == ("stop", 0)


def test_boxes_of_which_nothing_is_known_make_a_page_too() -> None:
    told = {"project": "p", "at": "2026-11-21T10:00:00Z", "machines": [], "sums": {}, "notes": []}
    page = Page(report_html.page({**told, "events": [], "receipts": [], "curves": []}))
    assert "Nothing is known" in page.said
    assert "nothing of these boxes is home" in page.said


def test_the_command_writes_one_file(team: BoxHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hosts, "resolve", lambda *unused: hosts.Inventory((team,), "", (), ()))
    Workspace(tmp_path / ".tenant/runner").history("p", "mnist").append(
        "interruption", box="a", generation=1, why="the host went away", step=3
    )
    done = CliRunner().invoke(cli, ["report", "-l", "all", "--html", "out/report.html"])
    assert done.exit_code == 0, done.output
    assert "the host went away" in Page((tmp_path / "out/report.html").read_text()).said
    refused = CliRunner().invoke(cli, ["report", "-l", "all", "--html", str(tmp_path)])
    assert refused.exit_code == 10
    assert "cannot be written" in refused.output
