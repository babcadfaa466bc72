# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Which mirror is used: whatever was measured, never one that lied, listed only or stalled."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.tenant.gpu.plugins.module_utils.mirrors import choice
from ansible_collections.tenant.gpu.plugins.module_utils.mirrors.choice import DIRECT, GOOD, Choice, Sample
from hypothesis import given, settings
from hypothesis import strategies as st

BAD = (choice.WRONG, choice.NO_FILE, choice.STALLED, choice.SLOW, choice.UNREACHABLE)
SAMPLES = st.lists(
    st.builds(
        lambda name, route, outcome, seconds: sample(name, seconds, outcome, route),
        st.sampled_from([DIRECT, "a", "b", "c"]),
        st.sampled_from(["plain", "proxied"]),
        st.sampled_from([GOOD, *BAD]),
        st.floats(0.001, 100),
    ),
    max_size=8,
    unique_by=lambda each: (each.name, each.route),
)
BEFORE = st.none() | st.builds(
    lambda name, route: Choice(name, f"https://{name}.example", route),
    st.sampled_from([DIRECT, "a", "b", "gone"]),
    st.sampled_from(["plain", "proxied"]),
)


def sample(name: str, seconds: float, outcome: str = GOOD, route: str = "plain", **more: Any) -> Sample:
    return Sample("pip", name, f"https://{name}.example", route, outcome, seconds, **more)


@settings(max_examples=200)
@given(samples=SAMPLES, before=BEFORE, margin=st.floats(1, 5), failed=st.sets(st.sampled_from("abc")))
def test_only_what_gave_its_file_is_used_and_something_is_while_anything_does(
    samples: list[Sample], before: Choice | None, margin: float, failed: set[str]
) -> None:
    urls = [f"https://{name}.example" for name in failed]
    found = choice.choose(samples, before, margin, urls)
    good = [each for each in samples if each.outcome == GOOD]
    assert (found is None) == (not good)
    if found is None:
        return
    (winner,) = [each for each in good if (each.name, each.route) == (found.name, found.route)]
    assert found.url == winner.url
    assert found.url not in urls or all(each.url in urls for each in good)
    rivals = [each for each in good if each.url not in urls] or good
    assert winner.seconds <= min(each.seconds for each in rivals) * margin
    # The same measurement again changes nothing.
    assert choice.choose(samples, found, margin, urls) == found


def test_it_falls_back_both_ways() -> None:
    assert choice.choose([sample(DIRECT, 0, choice.STALLED), sample("a", 9)], None, 1.5) == Choice(
        "a", "https://a.example", "plain"
    )
    used = Choice("a", "https://a.example", "plain")
    found = choice.choose([sample(DIRECT, 9), sample("a", 0, choice.WRONG)], used, 1.5)
    assert found is not None
    assert found.name == DIRECT


def test_a_little_more_speed_does_not_change_a_box() -> None:
    direct, mirror = sample(DIRECT, 1.2), sample("a", 1.0)
    assert choice.choose([direct, mirror], None, 1.5) == Choice(DIRECT, direct.url, "plain")
    assert choice.choose([direct, mirror], Choice("a", mirror.url, "plain"), 1.5) == Choice("a", mirror.url, "plain")
    much = choice.choose([sample(DIRECT, 3.0), mirror], None, 1.5)
    assert much is not None
    assert much.name == "a"


def test_what_failed_a_real_transfer_is_the_last_resort() -> None:
    fast, slow = sample("a", 0.1), sample("b", 5)
    found = choice.choose([fast, slow], Choice("a", fast.url, "plain"), 1.5, [fast.url])
    assert found is not None
    assert found.name == "b"
    only = choice.choose([fast, sample("b", 5, choice.WRONG)], None, 1.5, [fast.url])
    assert only is not None
    assert only.name == "a"


def test_the_ladder_lists_what_works_by_its_route() -> None:
    samples = [sample(DIRECT, 3, route="proxied"), sample(DIRECT, 0, choice.STALLED), sample("a", 1)]
    assert choice.hub_endpoints(samples) == "plain=https://a.example proxied=https://direct.example"
    assert choice.hub_endpoints([sample("a", 1, choice.WRONG)]) == ""


def test_hosts_that_a_proxy_slows_down_are_exempted_and_those_that_need_it_are_not() -> None:
    samples = [
        sample("a", 1),
        sample("a", 5, route="proxied"),
        sample("b", 1, choice.STALLED),
        sample("b", 1, route="proxied"),
        sample("c", 2),
        sample("c", 2, choice.UNREACHABLE, "proxied"),
    ]
    assert choice.exempted([Choice("a", "https://a.example", "plain")], samples) == [
        "https://a.example",
        "https://c.example",
    ]
    assert choice.exempted([Choice("b", "https://b.example", "proxied")], samples[:4]) == []


@pytest.mark.parametrize(
    ("samples", "chosen", "hook", "off"),
    [
        ([sample(DIRECT, 0, choice.STALLED)], None, "", True),
        ([sample(DIRECT, 0, choice.SLOW), sample(DIRECT, 1, route="proxied")], DIRECT, "", True),
        ([sample(DIRECT, 9), sample("a", 1)], "a", "", True),
        ([sample(DIRECT, 1)], DIRECT, "", False),
        # A mirror that was measured and not chosen is in nobody's way.
        ([sample(DIRECT, 1), sample("a", 0, choice.WRONG)], DIRECT, "", False),
        ([], None, "", False),
        ([sample(DIRECT, 1), sample(DIRECT, 2, route="proxied")], DIRECT, "/etc/network_turbo", True),
        ([], None, "http://turbo.example:30000", True),
    ],
)
def test_xet_and_hf_transfer_are_off_behind_a_mirror_a_proxy_or_a_bad_link(
    samples: list[Sample], chosen: str | None, hook: str, off: bool
) -> None:
    winner = Choice(chosen, f"https://{chosen}.example", "plain") if chosen else None
    assert choice.needs_plain_transfers(samples, winner, hook) is off


def test_samples_survive_their_record() -> None:
    told = sample("a", 1.5, choice.WRONG, why="hash")
    assert choice.sample_of(told.as_dict()) == told
