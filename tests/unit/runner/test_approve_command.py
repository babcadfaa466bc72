# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
from __future__ import annotations

import fcntl
import http.server
import json
import os
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import approvals, last_contact, losses
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import BoxIdentity, StateStore
from ansible_collections.tenant.gpu.plugins.module_utils.volume_stamp import record_name
from click.testing import CliRunner

from gpu_tenant import approve, hosts
from gpu_tenant.approve import Consent
from gpu_tenant.awx import Approved
from gpu_tenant.cli import cli

DIGEST = "ab" * 32


@pytest.fixture
def store(tmp_path: Path) -> StateStore:
    store = StateStore(str(tmp_path))
    store.update_box("demo", "digits-1", 1, provider_id="41", destroyed_at="2026-11-21T00:00:00Z")
    store.update_box("demo", "digits-1", 2, provider_id="42", destroyed_at=None)
    return store


@pytest.fixture
def identity(store: StateStore) -> BoxIdentity:
    return approve.identity_of(store, "demo", "digits-1")


def write_receipt(store: StateStore, identity: BoxIdentity, **changes: Any) -> None:
    receipt = {**identity.as_dict(), "run_id": "digits", "manifest_digest": DIGEST, "complete": True, **changes}
    path = store.receipt_path(identity.project, "digits", identity.box, identity.generation)
    records.write_record(path, "receipt", receipt)


def test_the_newest_generation_is_meant(identity: BoxIdentity) -> None:
    assert (identity.generation, identity.provider_id) == (2, "42")


@pytest.mark.parametrize(("generation", "word"), [(1, "destroyed"), (7, "never rented")])
def test_a_box_that_is_not_there_cannot_be_approved(store: StateStore, generation: int, word: str) -> None:
    with pytest.raises(TenantFailure, match=word):
        approve.identity_of(store, "demo", "digits-1", generation)


def test_without_results_at_home_there_is_nothing_to_bind_to(store: StateStore, identity: BoxIdentity) -> None:
    write_receipt(store, identity, complete=False)
    with pytest.raises(TenantFailure) as caught:
        approve.consent_to(store, identity, "destroy", Consent("Ada", "done"))
    assert caught.value.kind == "evidence_missing"
    assert store.approvals() == []


@pytest.mark.parametrize(
    ("consent", "kind"),
    [
        (Consent("Ada", "done"), "digest"),
        (Consent("Ada", "tonight", standing=True), "complete_receipt"),
        (Consent("Ada", "it burns", loss=losses.Loss({}, {}, ("which runs it holds",), "")), "loss"),
    ],
)
def test_what_an_approval_is_bound_to(store: StateStore, identity: BoxIdentity, consent: Consent, kind: str) -> None:
    write_receipt(store, identity)
    given = approve.consent_to(store, identity, "destroy", consent)
    assert (given["verb"], given["binds"]["kind"], given["approver"]) == ("destroy", kind, "Ada")
    assert [found["id"] for found in approvals.find(store, identity, "destroy")] == [given["id"]]
    assert given["id"] in approve.describe(given)


def test_a_receipt_of_another_machine_does_not_count(store: StateStore, identity: BoxIdentity) -> None:
    write_receipt(store, identity, provider_id="41")
    assert approve.receipts_of(store, identity) == {}


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("15m", 900), ("1h", 3600), ("2d", 172800)])
def test_lifetimes(text: str, seconds: int) -> None:
    assert approve.seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "1", "0h", "-1h", "1w", "1h30m"])
def test_lifetimes_that_are_none(text: str) -> None:
    with pytest.raises(TenantFailure, match="lifetime"):
        approve.seconds(text)


def test_a_lifetime_has_an_end_that_is_said_before_anybody_is_asked() -> None:
    assert approve.lifetime("90d", "digits-1") == approvals.MOST_TTL_S
    for text in ("91d", "9999999d"):
        with pytest.raises(TenantFailure, match="90 days") as caught:
            approve.lifetime(text, "digits-1")
        assert (caught.value.kind, caught.value.box) == ("config", "digits-1")


@pytest.fixture
def command_line(monkeypatch: pytest.MonkeyPatch, store: StateStore) -> CliRunner:
    keeps = {"transport": "none", "stops_compute": True, "stops_storage": True, "reversible": False}
    verbs = {
        "compute_stop": [],
        "park": [{**keeps, "verb": "关机", "keeps": ["disk", "fs"]}],
        "full_stop": [{**keeps, "verb": "释放", "keeps": ["fs"]}],
    }
    known = {"tenant_project": "demo", "tenant_state_dir": store.root, "platform_verbs": verbs}
    box = hosts.BoxHost("digits-1", known)
    monkeypatch.setattr(hosts, "resolve", lambda *unused: hosts.Inventory((box,), "", (), ()))
    return CliRunner()


def test_command_line(command_line: CliRunner, store: StateStore, identity: BoxIdentity) -> None:
    write_receipt(store, identity)
    words = ["approve", "teardown", "digits-1", "--approver", "Ada", "--reason", "it is home", "--json"]
    done = command_line.invoke(cli, words)
    assert done.exit_code == 0, done.output
    given = json.loads(done.stdout)
    assert given["binds"] == {"kind": "digest", "digests": {"digits": DIGEST}}
    assert given["verb"] == "释放", "the platform's own word for it"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--approver", "Ada"], 2),
        (["--approver", "Ada", "--reason", "r", "--standing", "--loss"], 2),
        (["--reason", "r"], 2),
        (["--approver", "Ada", "--awx-approval", "6", "--reason", "r"], 2),
        (["--approver", " ", "--reason", "r", "--standing"], 10),
        (["--approver", "Ada", "--reason", "r", "--standing", "--expires", "soon"], 10),
        (["--approver", "Ada", "--reason", "r", "--standing", "--expires", "9999999d"], 10),
        (["--approver", "Ada", "--reason", "r", "--generation", "1", "--standing"], 10),
        (["--approver", "Ada", "--reason", "r"], 21),
    ],
)
def test_refusals_have_an_exit_code_and_no_traceback(
    command_line: CliRunner, store: StateStore, words: list[str], code: int
) -> None:
    done = command_line.invoke(cli, ["approve", "释放", "digits-1", *words])
    assert done.exit_code == code
    assert "Traceback" not in done.output
    assert store.approvals() == []


@pytest.mark.parametrize("word", ["recycle", "teardwon"])
def test_a_verb_that_the_platform_does_not_know_is_named(command_line: CliRunner, word: str) -> None:
    done = command_line.invoke(cli, ["approve", word, "digits-1", "--approver", "Ada", "--reason", "r"])
    assert done.exit_code == 10
    assert "释放" in done.output


def test_platforms_without_a_profile_have_destroy() -> None:
    assert approve.verb_of("teardown", None, "b") == approve.verb_of("destroy", {}, "b") == "destroy"
    assert approve.verbs_of({"a": [{"verb": "x", "keeps": ["d"]}], "b": [{"verb": "x", "keeps": []}]}) == {"x": []}


# --- breaking glass ---


def break_glass(command_line: CliRunner, *words: str) -> Any:
    known = ["approve", "释放", "digits-1", "--approver", "Ada", "--reason", "it burns", "--loss"]
    return command_line.invoke(cli, [*known, *words])


def shown_id(output: str) -> str:
    (found,) = set(re.findall(r"--loss-id ([0-9a-f]{12})", output))
    return str(found)


def test_law_2_a_loss_is_composed_from_the_records_and_shown_first(
    command_line: CliRunner, store: StateStore, identity: BoxIdentity
) -> None:
    last_contact.note(store, identity, {"digits": {"c0": last_contact.Reached(40)}})
    shown = break_glass(command_line)
    assert (shown.exit_code, store.approvals()) == (10, [])
    assert "digits/c0: everything up to step 40; last durable copy: none" in shown.output
    given = break_glass(command_line, "--loss-id", shown_id(shown.output), "--json")
    assert given.exit_code == 0, given.output
    binds = json.loads(given.stdout)["binds"]
    assert binds["cells"]["digits/c0"]["known"] == {"step": 40, "done": False}


def test_law_2_a_loss_that_grew_since_it_was_shown_is_not_consented_to(
    command_line: CliRunner, store: StateStore, identity: BoxIdentity
) -> None:
    last_contact.note(store, identity, {"digits": {"c0": last_contact.Reached(40)}})
    seen = shown_id(break_glass(command_line).output)
    last_contact.note(store, identity, {"digits": {"c0": last_contact.Reached(41)}})
    refused = break_glass(command_line, "--loss-id", seen)
    assert (refused.exit_code, store.approvals()) == (10, [])
    assert "step 41" in refused.output


def test_at_a_terminal_the_name_of_the_box_is_the_consent(identity: BoxIdentity) -> None:
    loss, asked = losses.Loss({"digits/c0": last_contact.Reached(4)}, {}, (), ""), []

    def ask(question: str) -> str:
        asked.append(question)
        return answers.pop()

    answers = ["yes", "digits-1"]
    approve.agree_to_loss(identity, "destroy", loss, "", ask)
    assert "everything up to step 4" in asked[0]
    with pytest.raises(TenantFailure, match="not consented"):
        approve.agree_to_loss(identity, "destroy", loss, "", ask)


def test_what_was_not_pulled_is_shown_before_the_consent(
    command_line: CliRunner, store: StateStore, identity: BoxIdentity
) -> None:
    left = [{"path": "main/a1/out/cache.bin", "bytes": 9, "why": "no artifact glob names it"}]
    write_receipt(store, identity, not_pulled=left, not_pulled_totals={"files": 1, "bytes": 9})
    sentences = approve.left_on_box(approve.receipts_of(store, identity))
    assert ["cache.bin (no artifact glob names it)" in sentence for sentence in sentences] == [True]
    questions: list[str] = []

    def refuse(question: str) -> str:
        questions.append(question)
        return "yes"

    with pytest.raises(TenantFailure, match="not consented"):
        approve.agree_to_leave(identity, "destroy", sentences, refuse)
    assert "cache.bin" in questions[0]
    approve.agree_to_leave(identity, "destroy", sentences, lambda question: identity.box)
    approve.agree_to_leave(identity, "destroy", [], lambda question: pytest.fail("nothing stays behind"))
    words = ["approve", "teardown", "digits-1", "--approver", "Ada", "--reason", "it is home", "--json"]
    done = command_line.invoke(cli, words)
    assert (done.exit_code, json.loads(done.stdout)["not_pulled"]) == (0, sentences), done.output


def test_law_2_a_receipt_that_changes_while_the_question_stands_is_not_consented_to(
    store: StateStore, identity: BoxIdentity
) -> None:
    def receipt(digest: str, name: str) -> None:
        left = [{"path": name, "bytes": 9, "why": "harvest_roles leaves it on the box"}]
        write_receipt(
            store, identity, manifest_digest=digest, not_pulled=left, not_pulled_totals={"files": 1, "bytes": 9}
        )

    def harvested_meanwhile(digest: str) -> Callable[[str], str]:
        def ask(question: str) -> str:
            assert "run.log" in question
            receipt(digest, "every-checkpoint.pt")
            return "digits-1"

        return ask

    box = hosts.BoxHost("digits-1", {"tenant_state_dir": store.root, "tenant_project": "demo"})
    request = approve.Request("destroy", "Ada", "it is home")
    for digest in ("cd" * 32, DIGEST):
        receipt(DIGEST, "run.log")
        with pytest.raises(TenantFailure, match="receipt of digits changed after it was shown") as caught:
            approve.answer(box, request, harvested_meanwhile(digest))
        assert (caught.value.box, store.approvals()) == ("digits-1", [])
    receipt(DIGEST, "run.log")
    given, _left = approve.answer(box, request, lambda question: "digits-1")
    assert given["binds"] == {"kind": "digest", "digests": {"digits": DIGEST}}


# --- AWX ---


class FakeAwx(http.server.BaseHTTPRequestHandler):
    """An AWX with the workflow approvals of ``answers``; its token is "token"."""

    answers: ClassVar[dict[str, Any]] = {}

    def do_GET(self) -> None:
        found = self.answers.get(self.path) if self.headers["Authorization"] == "Bearer token" else None
        self.send_response(200 if found is not None else 404)
        self.end_headers()
        self.wfile.write(found if isinstance(found, bytes) else json.dumps(found).encode())

    def log_message(self, *unused: Any) -> None:
        return


def node(**changes: Any) -> dict[str, Any]:
    return {
        "name": "approve standing teardown of this box?",
        "description": "",
        "status": "successful",
        "timed_out": False,
        "created": records.utc_now()[:-1] + ".123456Z",
        "finished": records.utc_now()[:-1] + ".654321Z",
        "related": {"source_workflow_job": "/api/v2/workflow_jobs/5/"},
        "summary_fields": {"approved_or_denied_by": {"id": 1, "username": "grace"}},
        **changes,
    }


@pytest.fixture
def awx(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    answers: dict[str, Any] = {"/api/v2/workflow_jobs/5/": {"limit": "digits-1"}}
    handler = type("Handler", (FakeAwx,), {"answers": answers})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        monkeypatch.setenv("CONTROLLER_HOST", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("CONTROLLER_OAUTH_TOKEN", "token")
        yield answers
        server.shutdown()
        thread.join(timeout=600)


def by_awx(command_line: CliRunner, *more: str) -> Any:
    words = ["approve", "释放", "digits-1", "--awx-approval", "6", "--reason", "r", "--standing", "--json"]
    return command_line.invoke(cli, [*words, *more])


def test_under_awx_the_approver_is_whom_the_api_names_once(
    command_line: CliRunner, store: StateStore, awx: dict[str, Any]
) -> None:
    awx["/api/v2/workflow_approvals/6/"] = node()
    given = by_awx(command_line)
    assert given.exit_code == 0, given.output
    approval = json.loads(given.stdout)
    assert (approval["approver"], approval["source"]["kind"]) == ("grace", "awx")
    assert approval["source"]["ref"].endswith("/api/v2/workflow_approvals/6/")
    again = by_awx(command_line)
    assert (again.exit_code, len(store.approvals())) == (10, 1)
    assert "already" in again.output


@pytest.mark.parametrize(
    ("answer", "code", "word"),
    [
        (node(status="pending"), 22, "pending"),
        (node(status="failed"), 22, "failed"),
        (node(timed_out=True), 22, "timed out"),
        (node(summary_fields={}), 22, "who"),
        (node(related={}), 22, "workflow"),
        (node(related={"source_workflow_job": "http://elsewhere/"}), 22, "workflow"),
        (node(related={"source_workflow_job": "/api/v2/workflow_jobs/6/"}), 10, "404"),
        (node(created="2001-01-01T00:00:00Z"), 10, "too long ago"),
        (node(created="yesterday"), 10, "when"),
        (b"<html>", 10, "usable"),
        ([], 10, "usable"),
        (None, 10, "404"),
    ],
)
def test_awx_that_does_not_say_yes_gives_no_approval(
    command_line: CliRunner, store: StateStore, awx: dict[str, Any], answer: Any, code: int, word: str
) -> None:
    awx["/api/v2/workflow_approvals/6/"] = answer
    done = by_awx(command_line)
    assert (done.exit_code, store.approvals()) == (code, [])
    assert word in done.output


def in_workflow(*jobs: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"next": None, "results": [{"summary_fields": {"job": job}} for job in jobs], **more}


ASKED = {"id": 6, "type": "workflow_approval", "status": "successful"}
HARVEST = {"id": 4, "type": "job", "status": "successful"}
NODES = "/api/v2/workflow_jobs/5/workflow_nodes/?page_size=200"


def by_workflow(command_line: CliRunner) -> Any:
    words = ["approve", "释放", "digits-1", "--awx-workflow", "5", "--reason", "r", "--standing", "--json"]
    return command_line.invoke(cli, words)


def test_a_job_of_a_workflow_finds_the_answer_that_was_given_in_it(
    command_line: CliRunner, store: StateStore, awx: dict[str, Any]
) -> None:
    awx[NODES] = in_workflow(HARVEST, ASKED)
    awx["/api/v2/workflow_approvals/6/"] = node()
    given = by_workflow(command_line)
    assert given.exit_code == 0, given.output
    assert json.loads(given.stdout)["approver"] == "grace"
    assert by_workflow(command_line).exit_code == 10, "one answer is one approval"


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (in_workflow(HARVEST), 22),
        (in_workflow(HARVEST, {**ASKED, "status": "pending"}), 22),
        (in_workflow(ASKED, {**ASKED, "id": 7}), 22),
        (in_workflow({**ASKED, "id": "6"}), 22),
        (in_workflow(ASKED, next="/api/v2/more/"), 22),
        ({"results": "all"}, 22),
        ({"results": [None]}, 22),
        (None, 10),
    ],
)
def test_a_workflow_without_one_clear_answer_gives_no_approval(
    command_line: CliRunner, store: StateStore, awx: dict[str, Any], answer: Any, code: int
) -> None:
    awx[NODES] = answer
    awx["/api/v2/workflow_approvals/6/"] = node()
    assert (by_workflow(command_line).exit_code, store.approvals()) == (code, [])


def test_a_workflow_for_another_box_is_no_consent(
    command_line: CliRunner, store: StateStore, awx: dict[str, Any]
) -> None:
    awx["/api/v2/workflow_approvals/6/"] = node()
    awx["/api/v2/workflow_jobs/5/"] = {"limit": "digits-2"}
    assert (by_awx(command_line).exit_code, store.approvals()) == (22, [])


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"name": "approve Standing  Teardown?"}, 0),
        ({"name": "end it?", "description": "Of the paper's last run.\n approve standing 释放."}, 0),
        ({"name": "ready to harvest before the teardown?"}, 22),
        ({"name": "approve standing teardown-later"}, 22),
        ({"name": "approve standing 关机"}, 22),
        ({"name": "disapprove standing teardown"}, 22),
        ({"name": "Do not approve standing teardown yet"}, 22),
        ({"name": "end it?", "description": "This is not to approve standing 释放."}, 22),
        ({"name": "approve\nstanding teardown"}, 22),
        ({"name": "approve teardown of this box?"}, 22),
        ({"name": "approve teardown, standing or not?"}, 22),
        ({"name": None}, 22),
    ],
)
def test_law_2_an_answer_in_awx_is_to_the_verb_that_was_asked_for(
    command_line: CliRunner, store: StateStore, awx: dict[str, Any], asked: dict[str, Any], code: int
) -> None:
    awx["/api/v2/workflow_approvals/6/"] = node(**asked)
    done = by_awx(command_line)
    assert (done.exit_code, len(store.approvals())) == (code, 0 if code else 1), done.output
    assert code == 0 or "or a line of its description, begin with 'approve standing " in done.output


def test_law_2_a_standing_consent_of_awx_is_short(
    command_line: CliRunner, store: StateStore, awx: dict[str, Any]
) -> None:
    """How long is the word of the job, which nobody is shown who answers."""
    awx["/api/v2/workflow_approvals/6/"] = node()
    long = by_awx(command_line, "--expires", "90d")
    assert (long.exit_code, store.approvals()) == (10, [])
    assert "7 days" in long.output
    assert by_awx(command_line, "--expires", "7d").exit_code == 0


HOME = ["approve", "释放", "digits-1", "--awx-approval", "6", "--reason", "r", "--json"]


@pytest.mark.parametrize(
    ("finished", "verified", "code"),
    [
        ("2026-11-21T03:00:00.9Z", "2026-11-21T03:00:00Z", 0),
        ("2026-11-21T03:00:00.9Z", "2026-11-21T03:00:01Z", 10),
        ("2026-11-21T03:00:00.9Z", "soon", 10),
        (None, "2026-11-21T03:00:00Z", 10),
    ],
)
def test_law_2_an_answer_in_awx_is_to_what_was_home_by_then(
    command_line: CliRunner,
    store: StateStore,
    identity: BoxIdentity,
    awx: dict[str, Any],
    finished: str | None,
    verified: str,
    code: int,
) -> None:
    write_receipt(store, identity, verified_at=verified)
    awx["/api/v2/workflow_approvals/6/"] = node(name="approve teardown?", finished=finished)
    done = command_line.invoke(cli, HOME)
    assert (done.exit_code, len(store.approvals())) == (code, 0 if code else 1), done.output


@pytest.mark.parametrize(
    ("earlier", "later", "same"),
    [
        (
            "https://awx.example/api/v2/workflow_approvals/6/",
            "https://AWX.example:443/api/v2/workflow_approvals/6/",
            True,
        ),
        ("https://awx.example/api/v2/workflow_approvals/6/", "http://awx.example./api/v2/workflow_approvals/6/", True),
        (
            "https://awx.example/api/v2/workflow_approvals/6/",
            "https://awx.example/awx/api/v2/workflow_approvals/06/",
            True,
        ),
        ("https://awx.example/api/v2/workflow_approvals/6/", "https://awx.example/api/v2/workflow_approvals/7/", False),
        (
            "https://awx.example/api/v2/workflow_approvals/6/",
            "https://awx.example:8443/api/v2/workflow_approvals/6/",
            False,
        ),
        (
            "https://awx.example/api/v2/workflow_approvals/6/",
            "https://other.example/api/v2/workflow_approvals/6/",
            False,
        ),
        ("ada@machine", "https://awx.example/api/v2/workflow_approvals/6/", False),
        ("http://[", "https://awx.example/api/v2/workflow_approvals/6/", False),
    ],
)
def test_law_2_a_node_counts_once_however_its_awx_is_spelled(earlier: str, later: str, same: bool) -> None:
    answered = Approved("grace", "2026-11-21T03:00:00.123456Z", "2026-11-21T03:01:00Z", later)
    assert answered.is_node_of({"kind": "awx", "ref": earlier}) is same


def test_law_2_a_node_counts_once_also_by_another_name_of_its_awx(
    command_line: CliRunner, store: StateStore, awx: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    awx["/api/v2/workflow_approvals/6/"] = node()
    assert by_awx(command_line).exit_code == 0
    monkeypatch.setenv("CONTROLLER_HOST", os.environ["CONTROLLER_HOST"].replace("127.0.0.1", "localhost") + "/")
    again = by_awx(command_line)
    assert (again.exit_code, len(store.approvals())) == (10, 1)
    assert "already" in again.output


def test_law_2_two_jobs_with_one_answer_make_one_approval(
    command_line: CliRunner, store: StateStore, identity: BoxIdentity, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever looks for used answers has the lock until its own approval lies there."""
    answered = Approved(
        "grace", records.utc_now(), records.utc_now(), "https://awx.example/api/v2/workflow_approvals/6/"
    )
    consent = Consent("grace", "r", 3600, standing=True, awx=answered)
    held: list[bool] = []
    really = approvals.give

    def give(*arguments: Any, **options: Any) -> Any:
        with open(store.path("approvals", ".awx.lock"), "rb") as other:
            try:
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                held.append(True)
        return really(*arguments, **options)

    monkeypatch.setattr(approvals, "give", give)
    approve.give(store, identity, "释放", consent, {})
    assert held == [True]
    with pytest.raises(TenantFailure, match="already"):
        approve.give(store, identity, "释放", consent, {})


def test_law_2_an_answer_in_awx_is_to_no_loss_that_it_does_not_name(
    command_line: CliRunner, store: StateStore, identity: BoxIdentity, awx: dict[str, Any]
) -> None:
    last_contact.note(store, identity, {"digits": {"c0": last_contact.Reached(40)}})
    lost = shown_id(break_glass(command_line).output)
    words = ["approve", "teardown", "digits-1", "--awx-approval", "6", "--reason", "r", "--loss", "--loss-id", lost]
    for description in ("", "approve teardown, loss 0123456789ab"):
        awx["/api/v2/workflow_approvals/6/"] = node(name="approve teardown?", description=description)
        refused = command_line.invoke(cli, words)
        assert (refused.exit_code, store.approvals()) == (22, [])
        assert f"loss {lost}" in refused.output
    told = f"loss {lost}: everything up to step 40"
    awx["/api/v2/workflow_approvals/6/"] = node(name="approve teardown?", description=told)
    given = command_line.invoke(cli, [*words, "--json"])
    assert given.exit_code == 0, given.output
    assert json.loads(given.stdout)["approver"] == "grace"


@pytest.mark.parametrize("which", [("--awx-workflow", "5"), ("--awx-approval", "6")])
def test_the_end_of_a_volume_is_approved_in_awx_too(
    command_line: CliRunner, store: StateStore, awx: dict[str, Any], which: tuple[str, str]
) -> None:
    store.update_box("demo", record_name("data-1"), 1, provider_id="V.7", destroyed_at=None)
    words = ["approve", "delete", "data-1", "--volume", "--reason", "it is copied", *which]
    lost = shown_id(command_line.invoke(cli, words).output)
    awx[NODES], awx["/api/v2/workflow_jobs/5/"] = in_workflow(HARVEST, ASKED), {"limit": "data-1"}
    awx["/api/v2/workflow_approvals/6/"] = node(name="approve delete of the volume?")
    assert command_line.invoke(cli, [*words, "--loss-id", lost]).exit_code == 22
    awx["/api/v2/workflow_approvals/6/"] = node(name=f"approve delete of the volume, loss {lost}?")
    given = command_line.invoke(cli, [*words, "--loss-id", lost, "--json"])
    assert given.exit_code == 0, given.output
    assert (json.loads(given.stdout)["approver"], json.loads(given.stdout)["provider_id"]) == ("grace", "V.7")


def test_without_an_awx_to_ask_nothing_is_given(
    command_line: CliRunner, store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CONTROLLER_HOST", raising=False)
    done = by_awx(command_line)
    assert (done.exit_code, store.approvals()) == (10, [])
    assert "CONTROLLER_HOST" in done.output
