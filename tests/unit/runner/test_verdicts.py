# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The table of verdicts. Each row is what three witnesses say of a rented box, and what is the matter with it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_tenant import verdicts
from gpu_tenant.verdicts import BoxWord, LedgerWord, ProviderWord, Silence, outage, verdict

PROVIDER = (
    "absent", "loading", "running", "stopped", "outbid", "scheduling", "exited", "offline", "unknown", "unreachable",
)  # fmt: skip
CONTACT = ("answered", "unreachable", "no_supervisor", "no_python", "unpinned", "not_tried")
RUN = ("", "queued", "running", "verifying", "copying", "done", "failed", "preempted", "blocked", "surprise")
UP = ProviderWord("running")
RENTED = LedgerWord(rented=True)


def said(run_state: str, **more: object) -> BoxWord:
    return BoxWord("answered", run_state, **more)  # type: ignore[arg-type]  # rows of the table


TABLE = [
    ("nothing rented yet", ProviderWord("absent", absences=9), BoxWord(), LedgerWord(), verdicts.NOT_RENTED),
    ("gone, said once", ProviderWord("absent", absences=1), BoxWord(), RENTED, verdicts.UNREACHABLE),
    ("gone, said twice", ProviderWord("absent", absences=2), BoxWord(), RENTED, verdicts.GONE),
    ("outbid", ProviderWord("outbid"), BoxWord(), RENTED, verdicts.OUTBID),
    ("stopped", ProviderWord("stopped"), BoxWord(), RENTED, verdicts.STOPPED),
    ("container ended", ProviderWord("exited"), BoxWord(), RENTED, verdicts.EXITED),
    ("loading", ProviderWord("loading", unchanged_s=899), BoxWord(), RENTED, verdicts.STARTING),
    ("loading for long", ProviderWord("loading", unchanged_s=900), BoxWord(), RENTED, verdicts.LOADING_STUCK),
    ("scheduling", ProviderWord("scheduling"), BoxWord(), RENTED, verdicts.STARTING),
    ("no GPU to start on", ProviderWord("scheduling", unchanged_s=900), BoxWord(), RENTED, verdicts.SCHEDULING_STUCK),
    ("a missed heartbeat", ProviderWord("offline", unchanged_s=60), BoxWord(), RENTED, verdicts.UNREACHABLE),
    ("host lost", ProviderWord("offline", unchanged_s=900), BoxWord(), RENTED, verdicts.HOST_OFFLINE),
    ("provider silent", ProviderWord("unreachable", unchanged_s=86400), BoxWord(), RENTED, verdicts.UNREACHABLE),
    ("provider confused", ProviderWord("unknown", unchanged_s=86400), BoxWord(), RENTED, verdicts.UNREACHABLE),
    ("an old word", ProviderWord("outbid", age_s=121), BoxWord(), RENTED, verdicts.UNREACHABLE),
    ("silent for a day", UP, BoxWord("unreachable", unchanged_s=86400), RENTED, verdicts.UNREACHABLE),
    ("key not pinned", UP, BoxWord("unpinned"), RENTED, verdicts.BARE),
    ("nothing deployed", UP, BoxWord("no_supervisor"), RENTED, verdicts.BARE),
    ("no Python", UP, BoxWord("no_python"), RENTED, verdicts.NO_PYTHON),
    ("run unknown to it", UP, said(""), RENTED, verdicts.BARE),
    ("trains", UP, said("running"), RENTED, verdicts.RUNNING),
    ("trains, said long ago", UP, said("running", age_s=121), RENTED, verdicts.UNREACHABLE),
    ("trains, hot", UP, said("running", alerts=("it throttles",)), RENTED, verdicts.ALERT),
    ("no sign of work", UP, said("running", stalled=True), RENTED, verdicts.STALLED),
    ("its card fell off", UP, said("running", zero_gpu=True), RENTED, verdicts.ZERO_GPU),
    ("done on a box without GPU", UP, said("done", zero_gpu=True), RENTED, verdicts.FINISHED),
    ("done", UP, said("done"), RENTED, verdicts.FINISHED),
    ("failed", UP, said("failed"), RENTED, verdicts.FAILED),
    ("just preempted", UP, said("preempted", unchanged_s=19), RENTED, verdicts.STARTING),
    ("preempted, not resumed", UP, said("preempted", unchanged_s=21), RENTED, verdicts.STALLED),
    ("queued for long", UP, said("queued", unchanged_s=301), RENTED, verdicts.STALLED),
    ("blocked", UP, said("blocked", unchanged_s=60), RENTED, verdicts.STARTING),
    ("blocked for long", UP, said("blocked", unchanged_s=901), RENTED, verdicts.FAILED),
    ("home", UP, said("done"), LedgerWord(home=True, rented=True), verdicts.FINISHED),
    ("home, box gone", ProviderWord("absent"), BoxWord(), LedgerWord(home=True), verdicts.FINISHED),
    ("replaced", ProviderWord("outbid"), BoxWord(), LedgerWord(rented=True, superseded=True), verdicts.SUPERSEDED),
]


@pytest.mark.parametrize(
    ("provider", "box", "ledger", "name"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_verdict(provider: ProviderWord, box: BoxWord, ledger: LedgerWord, name: str) -> None:
    found = verdict(provider, box, ledger)
    assert found.name == name
    assert found.why


def test_every_verdict_of_the_list_has_a_row() -> None:
    assert {row[4] for row in TABLE} == set(verdicts.ALL)


seconds = st.floats(0, 1e6)
provider_words = st.builds(ProviderWord, st.sampled_from(PROVIDER), seconds, seconds, st.integers(0, 5))
box_words = st.builds(
    BoxWord, st.sampled_from(CONTACT), st.sampled_from(RUN), seconds, seconds, st.booleans(), st.booleans()
)
ledgers = st.builds(LedgerWord, st.booleans(), st.booleans(), st.booleans())


@given(provider_words, box_words, ledgers)
def test_every_combination_of_words_has_one_verdict(provider: ProviderWord, box: BoxWord, ledger: LedgerWord) -> None:
    assert verdict(provider, box, ledger).name in verdicts.ALL


@given(provider_words, box_words, ledgers)
def test_only_the_provider_says_that_a_box_is_lost(provider: ProviderWord, box: BoxWord, ledger: LedgerWord) -> None:
    found = verdict(provider, box, ledger).name
    if found in verdicts.LOST and found != verdicts.ZERO_GPU:
        assert provider.state not in ("unreachable", "unknown", "running")
        assert provider.age_s <= verdicts.FRESH_S
    if found == verdicts.GONE:
        assert provider.absences >= 2


def heard(box: str) -> Silence:
    return Silence(box, "running", "answered")


@pytest.mark.parametrize(
    "silent",
    [
        Silence("", "unreachable", "not_tried"),
        Silence("", "unknown", "not_tried"),
        Silence("", "running", "unreachable"),
        Silence("", "absent", "not_tried", 3),
    ],
)
def test_most_boxes_silent_at_once_is_an_outage(silent: Silence) -> None:
    fleet = [silent, silent, heard("c")]
    assert outage(fleet)
    assert not outage([*fleet, heard("d")]), "half of them is not most of them"
    assert not outage([silent]), "of a single box nobody can tell"


def test_boxes_that_are_missing_for_long_are_no_outage() -> None:
    assert not outage([Silence("a", "absent", "", 10), Silence("b", "absent", "", 10)])


def test_outbid_boxes_are_no_outage() -> None:
    assert not outage([Silence(name, "outbid", "not_tried") for name in "abcd"])


def test_a_host_that_is_offline_is_told_in_the_provider_s_words() -> None:
    """Of Lambda's Alert nobody knows whether it was shut down from inside: the words are shown as they are."""
    told = verdicts.verdict(ProviderWord("offline", unchanged_s=900, said="unhealthy (Alert)"), BoxWord(), RENTED)
    assert (told.name, told.why) == (
        verdicts.HOST_OFFLINE,
        "its host has been offline for 15 min (its provider says: unhealthy (Alert))",
    )
