# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import approvals
from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import BoxIdentity, StateStore
from click.testing import CliRunner

from gpu_tenant import approve, hosts
from gpu_tenant.approve import Consent
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
        (Consent("Ada", "it burns", loss="run digits after step 400"), "loss"),
    ],
)
def test_what_an_approval_is_bound_to(store: StateStore, identity: BoxIdentity, consent: Consent, kind: str) -> None:
    write_receipt(store, identity)
    given = approve.consent_to(store, identity, "teardown", consent)
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


@pytest.fixture
def command_line(monkeypatch: pytest.MonkeyPatch, store: StateStore) -> CliRunner:
    box = hosts.BoxHost("digits-1", {"tenant_project": "demo", "tenant_state_dir": store.root})
    monkeypatch.setattr(hosts, "resolve", lambda *unused: hosts.Inventory((box,), "", (), ()))
    return CliRunner()


def test_command_line(command_line: CliRunner, store: StateStore, identity: BoxIdentity) -> None:
    write_receipt(store, identity)
    words = ["approve", "destroy", "digits-1", "--approver", "Ada", "--reason", "it is home", "--json"]
    done = command_line.invoke(cli, words)
    assert done.exit_code == 0, done.output
    given = json.loads(done.stdout)
    assert given["binds"] == {"kind": "digest", "digests": {"digits": DIGEST}}


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--approver", "Ada"], 2),
        (["--approver", "Ada", "--reason", "r", "--standing", "--loss", "all"], 2),
        (["--approver", " ", "--reason", "r", "--standing"], 10),
        (["--approver", "Ada", "--reason", "r", "--standing", "--expires", "soon"], 10),
        (["--approver", "Ada", "--reason", "r", "--generation", "1", "--standing"], 10),
        (["--approver", "Ada", "--reason", "r"], 21),
    ],
)
def test_refusals_have_an_exit_code_and_no_traceback(
    command_line: CliRunner, store: StateStore, words: list[str], code: int
) -> None:
    done = command_line.invoke(cli, ["approve", "destroy", "digits-1", *words])
    assert done.exit_code == code
    assert "Traceback" not in done.output
    assert store.approvals() == []
