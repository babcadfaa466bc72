# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A termination by RunPod itself asks no gate: it is sent only under a consent to the loss that was given before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import approvals
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure
from ansible_collections.tenant.gpu.plugins.module_utils.runpod import launch_consent
from click.testing import CliRunner
from pod_market import PodMarket

from gpu_tenant import hosts
from gpu_tenant.cli import cli

pytest.importorskip("graphql", reason="the marketplace answers GraphQL by it")
AFTER_S = 7200
ORDER = {"terminate_after_s": AFTER_S}
WHO = {"approver": "ada", "source": {"kind": "cli", "ref": ""}, "reason": "a sweep whose results nobody needs"}


@pytest.fixture
def market(tmp_path: Path) -> PodMarket:
    return PodMarket(tmp_path, version="")


def consent(market: PodMarket, after_s: int = AFTER_S, **changes: Any) -> dict[str, Any]:
    identity = launch_consent.next_identity(market.store, "digits", "pod-a")
    binds = launch_consent.loss_of(after_s).as_binds()
    return approvals.give(market.store, identity, launch_consent.VERB, **{"binds": binds, **WHO, **changes})


def deploys(market: PodMarket) -> int:
    return market.count("POST", "^/graphql$") + market.count("POST", "pods$")


def moments(market: PodMarket) -> list[tuple[float | None, float | None]]:
    found = [one.pod for one in market.market.books.state.instances.values() if one.pod is not None and one.live]
    return [(pod.stop_after, pod.terminate_after) for pod in found]


@pytest.mark.parametrize("check", [True, False])
def test_without_a_consent_nothing_is_rented(market: PodMarket, check: bool) -> None:
    with pytest.raises(TenantFailure, match="nobody consented") as refused:
        market.bring("started", check=check, **ORDER)
    assert (refused.value.kind, refused.value.safe) == ("gate_refused", "nothing was rented")
    assert f"gpu-tenant approve terminate-after pod-a --after {AFTER_S}s" in refused.value.fix
    assert (deploys(market), market.pods()) == (0, [])
    assert market.store.read_box("digits", "pod-a", 1) is None


@pytest.mark.parametrize("order", [{}, {"stop_after_s": 3600}])
def test_a_consent_alone_sends_nothing_that_was_not_ordered(market: PodMarket, order: dict[str, Any]) -> None:
    consent(market)
    market.bring("started", **order)
    assert [end for _stop, end in moments(market)] == [None]


def test_under_a_consent_it_is_sent_and_comes(market: PodMarket) -> None:
    given = consent(market)
    predicted = market.bring("started", check=True, **ORDER)
    assert predicted["would"]["clocks"]["terminates_by_itself_after_s"] == AFTER_S
    made = market.bring("started", **ORDER, stop_after_s=3600)
    [(stop, end)] = moments(market)
    assert stop is not None
    assert end == stop + AFTER_S - 3600
    assert ["RunPod itself terminates pod" in one or "RunPod itself stops pod" in one for one in made["warnings"]] == [
        True,
        True,
    ]
    spent = {one.approval_id: one.journalled_used for one in approvals.load_all(market.store)}
    assert spent == {given["id"]: True}
    market.sleep(3700)
    resting = market.bring("present")
    assert (resting["pod"]["state"], len(resting["warnings"])) == ("stopped", 1), "the end is still ahead of it"
    market.sleep(AFTER_S)
    assert market.pods() == []
    with pytest.raises(TenantFailure, match="nobody consented"):
        market.bring("started", **ORDER)  # that consent was for one pod


@pytest.mark.parametrize(
    "changes",
    [
        {"after_s": AFTER_S + 1},
        {"binds": {"kind": "complete_receipt"}},
        {"binds": {"kind": "loss", "loss": "all", "cells": {}, "unknown": []}},
        {"now": "2020-01-01T00:00:00Z"},
    ],
)
def test_a_consent_to_something_else_is_none(market: PodMarket, changes: dict[str, Any]) -> None:
    consent(market, **changes)
    with pytest.raises(TenantFailure, match="nobody consented"):
        market.bring("started", **ORDER)
    assert deploys(market) == 0


def test_an_approval_of_the_gate_s_own_verb_is_none(market: PodMarket) -> None:
    identity = launch_consent.next_identity(market.store, "digits", "pod-a")
    approvals.give(market.store, identity, "destroy", launch_consent.loss_of(AFTER_S).as_binds(), **WHO)
    with pytest.raises(TenantFailure, match="nobody consented"):
        market.bring("started", **ORDER)


def test_an_edited_consent_is_none(market: PodMarket) -> None:
    given = consent(market, after_s=AFTER_S + 60)
    path = Path(market.store.approval_path(given["id"]))
    path.write_text(path.read_text().replace(str(AFTER_S + 60), str(AFTER_S)))
    with pytest.raises(TenantFailure, match="nobody consented"):
        market.bring("started", **ORDER)


def test_a_refusal_for_want_of_capacity_leaves_the_consent(market: PodMarket) -> None:
    consent(market)
    with pytest.raises(TenantFailure, match="no longer any instances"):
        market.bring("started", gpu_types=("NVIDIA B200",), **ORDER)
    market.bring("started", **ORDER)
    assert [end is not None for _stop, end in moments(market)] == [True]


def test_a_lost_create_is_found_with_its_end_known(market: PodMarket) -> None:
    consent(market)
    market.inject("lost_answer", "create")
    made = market.bring("started", **ORDER)
    assert (deploys(market), len(market.pods())) == (1, 1)
    assert "RunPod itself terminates pod" in made["warnings"][0]
    assert market.store.read_box("digits", "pod-a", 1)["terminates_at"]


@pytest.mark.parametrize(
    ("order", "words"),
    [
        ({"terminate_after_s": 599}, "below 600 s"),
        ({"terminate_after_s": -1}, "below 600 s"),
        ({"terminate_after_s": 3600, "stop_after_s": 3600}, "below 3601 s"),
        ({"terminate_after_s": 3600, "market": "interruptible"}, "for pods on demand only"),
    ],
)
def test_what_makes_no_sense_is_refused(market: PodMarket, order: dict[str, Any], words: str) -> None:
    consent(market)
    with pytest.raises(TenantFailure, match=words) as refused:
        market.bring("started", **order)
    assert refused.value.kind == "config"
    assert deploys(market) == 0


# --- the command ----------------------------------------------------------------------------------------------------


def approve(market: PodMarket, monkeypatch: pytest.MonkeyPatch, *words: str, driver: str = "runpod") -> Any:
    facts = {"tenant_project": "digits", "tenant_state_dir": market.store.root, "platform_driver": driver}
    found = hosts.Inventory((hosts.BoxHost("pod-a", facts),), "", (), ())
    monkeypatch.setattr(hosts, "resolve", lambda *_unused: found)
    command = ["approve", "terminate-after", "pod-a", "--reason", "r", "--approver", "ada", "--json", *words]
    return CliRunner().invoke(cli, command)


def test_the_command_shows_the_loss_before_it_takes_the_consent(
    market: PodMarket, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = approve(market, monkeypatch, "--after", "2h")
    assert shown.exit_code == 10
    assert "its volume disk included" in shown.output
    loss_id = shown.output.partition("--loss-id ")[2][:12]
    assert approvals.load_all(market.store) == ()
    given = approve(market, monkeypatch, "--after", "2h", "--loss-id", loss_id)
    assert given.exit_code == 0, given.output
    assert json.loads(given.output.splitlines()[-1])["verb"] == "terminate-after"
    market.bring("started", **ORDER)
    assert [end is not None for _stop, end in moments(market)] == [True]


@pytest.mark.parametrize(
    ("words", "driver", "said"),
    [
        ((), "runpod", "after so many seconds"),
        (("--after", "2h", "--standing"), "runpod", "after so many seconds"),
        (("--after", "soon"), "runpod", "not a lifetime"),
        (("--after", "2h"), "vast", "no box of RunPod"),
        (("--after", "2h", "--loss-id", "0123456789ab"), "runpod", "is not what would be lost"),
    ],
)
def test_the_command_refuses_in_words(
    market: PodMarket, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], driver: str, said: str
) -> None:
    refused = approve(market, monkeypatch, *words, driver=driver)
    assert (refused.exit_code, said in refused.output) == (10, True), refused.output
    assert approvals.load_all(market.store) == ()


@pytest.mark.parametrize("words", [("--awx-approval", "6"), ("--awx-workflow", "5")])
def test_an_answer_in_awx_may_be_to_another_question(
    market: PodMarket, monkeypatch: pytest.MonkeyPatch, words: tuple[str, str]
) -> None:
    facts = {"tenant_project": "digits", "tenant_state_dir": market.store.root, "platform_driver": "runpod"}
    found = hosts.Inventory((hosts.BoxHost("pod-a", facts),), "", (), ())
    monkeypatch.setattr(hosts, "resolve", lambda *_unused: found)
    loss_id = "0" * 12
    command = ["approve", "terminate-after", "pod-a", "--after", "2h", "--reason", "r", "--loss-id", loss_id, *words]
    refused = CliRunner().invoke(cli, command)
    assert refused.exit_code == 10
    assert "does not say that it is consent to terminate-after" in refused.output
    assert approvals.load_all(market.store) == ()


def test_consent_after_the_loss_of_the_store_is_for_a_number_that_no_pod_had(market: PodMarket, tmp_path: Path) -> None:
    (tmp_path / "results/digits/nightly/pod-a/g7").mkdir(parents=True)
    results = str(tmp_path / "results")
    assert launch_consent.next_identity(market.store, "digits", "pod-a", results).generation == 8
