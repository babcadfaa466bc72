# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Law 2 as a decision table: the gate against an oracle written from the law, on whole, broken and generated worlds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import gate_cases
import pytest
from ansible_collections.tenant.gpu.plugins.module_utils import gate
from gate_cases import APPROVAL_CHANGES, BASES, CHANGES, RUN_CHANGES, SHUT, Approval, Case, build, judge, table
from hypothesis import given, settings
from hypothesis import strategies as st


def decided(case: Case) -> tuple[bool, str, str | None]:
    decision = gate.decide(build(case))
    assert decision.allowed == (not decision.missing), case
    return decision.allowed, decision.rule, decision.approval_id


@pytest.mark.parametrize("name", sorted(set(BASES) - {"nobody", "nobody, offline"}))
def test_law_2_the_ways_through_the_gate(name: str) -> None:
    """Each base is a way through; what follows takes it apart."""
    assert decided(BASES[name])[0]
    assert judge(BASES[name])[0]


@pytest.mark.parametrize("name", sorted(SHUT))
def test_law_2_a_newest_checkpoint_that_only_a_superseded_box_has_keeps_it(name: str) -> None:
    assert not judge(SHUT[name])[0]
    assert not decided(SHUT[name])[0]


def test_law_2_every_single_change_is_judged_as_the_law_says() -> None:
    cases = table()
    for case in cases:
        assert decided(case) == judge(case), case
    allowed = sum(judge(case)[0] for case in cases)
    assert len(cases) > 1500
    assert 0.1 < allowed / len(cases) < 0.9, "a table that is all open or all shut shows little"


# (what to change, which one of them, field, value)
STEPS: list[tuple[str, int, str, Any]] = [
    *[("case", 0, name, value) for name, values in CHANGES.items() for value in values],
    *[("runs", which, name, value) for which in (0, 1) for name, values in RUN_CHANGES.items() for value in values],
    *[
        ("approvals", which, name, value)
        for which in (0, 1)
        for name, values in APPROVAL_CHANGES.items()
        for value in values
    ],
]


def apply(case: Case, step: tuple[str, int, str, Any]) -> Case:
    what, which, name, value = step
    if what == "case":
        return dataclasses.replace(case, **{name: value})
    items = list(getattr(case, what))
    if which < len(items):
        items[which] = dataclasses.replace(items[which], **{name: value})
    return dataclasses.replace(case, **{what: tuple(items)})


def _world(name: str, consent: tuple[Approval, ...], steps: list[tuple[str, int, str, Any]]) -> Case:
    case = BASES[name]
    case = dataclasses.replace(case, approvals=(*case.approvals, *consent))
    for step in steps:
        case = apply(case, step)
    return case


CONSENTS = [(), (Approval(),), (Approval("standing"),), (Approval("loss"),), (Approval("loss"), Approval())]
# Up to five changes at once, so that a world is whole enough to come through now and then.
CASES = st.builds(
    _world, st.sampled_from(sorted(BASES)), st.sampled_from(CONSENTS), st.lists(st.sampled_from(STEPS), max_size=5)
)


@settings(max_examples=500)
@given(case=CASES)
def test_law_2_the_gate_opens_exactly_when_the_law_says_so(case: Case) -> None:
    assert decided(case) == judge(case)


SOUND_FLAWS = ("", "hardly future")
Break = Callable[[Case], Case]
NO_RECEIPT = ("not asked", "none", "damaged", "withdrawn", "failed check")
SOUND = gate_cases.SOUND_RECEIPTS
WHOLE = tuple(flaw for flaw in SOUND if flaw not in gate_cases.STEPS_OF_RECEIPT)


def _from(good: tuple[Any, ...], **changes: Any) -> Break:
    """Set a field of the case, where it is whole: one fault in place of another would be no loss."""
    name = next(iter(changes))
    return lambda case: dataclasses.replace(case, **changes) if getattr(case, name) in good else case


def _receipt_breaks() -> dict[str, Break]:
    flaws = [flaw for flaw in (*NO_RECEIPT, *gate_cases.RECEIPT_FLAWS) if flaw not in SOUND]
    copies = [(), ("broken",), ("other",), ("unread",), ("mount, own",), ("mount, nobody",)]
    return {
        **{f"receipt {flaw}": lambda case, flaw=flaw: _each_sound_run(case, receipt=flaw) for flaw in flaws},
        **{f"copies {kinds}": lambda case, kinds=kinds: _each_sound_run(case, copies=kinds) for kinds in copies},
    }


APPROVALS_BREAK = [flaw for flaw in (*gate_cases.APPROVAL_FLAWS, *gate_cases.LOADED_FLAWS) if flaw not in SOUND_FLAWS]
# Ways of breaking one piece of evidence. None of them may open a gate that is shut.
BREAKS: dict[str, Break] = {
    **{f"reading {state}": _from(("ok",), reading=state) for state in ("none", "damaged")},
    **{f"reading {flaw}": _from(("",), reading_flaw=flaw) for flaw in gate_cases.READING_FLAWS if flaw},
    **{f"seal {flaw}": _from(("ok",), seal=flaw) for flaw in ("text", "foreign", "old", "runless")},
    **{f"index {flaw}": _from(("ok",), index=flaw) for flaw in ("text", "foreign", "old", "runless")},
    "a cell lives": lambda case: dataclasses.replace(case, live=(*case.live, "r1/c0/a7")),
    "a run is unlisted": lambda case: dataclasses.replace(case, unlisted=(*case.unlisted, "r9")),
    "a record is damaged": lambda case: dataclasses.replace(case, problems=(*case.problems, "x is half-written")),
    "time passes": lambda case: dataclasses.replace(case, age=max(case.age, 9000)) if case.age >= -60 else case,
    "the box was started": _from(("", "before", "as it was read"), started="after"),
    "the provider is not asked": lambda case: dataclasses.replace(case, observed_age=302),
    "it was started by us": _from(("", "before"), recorded_start="soon after"),
    "it was not stopped by us": lambda case: dataclasses.replace(case, parked=""),
    "it was stopped long after": _from(("before", "as it was read", "soon after", "in time"), parked="late"),
    # What it knew of a start goes with it.
    "the box record is lost": _from(("", "before"), recorded_start="", box_record="none"),
    "a deploy is in the journal": lambda case: dataclasses.replace(case, journalled_deploy=True),
    "the successor is forgotten": lambda case: dataclasses.replace(case, newer=""),
    "the approvals are lost": lambda case: dataclasses.replace(case, approvals=()),
    "the copies elsewhere are lost": lambda case: _each_run(case, elsewhere=None),
    "the runs were seen further": lambda case: _each_run(case, contact=gate_cases.at(12, True)),
    **_receipt_breaks(),
    **{f"approvals {flaw}": lambda case, flaw=flaw: _each_sound_approval(case, flaw) for flaw in APPROVALS_BREAK},
}


def _each_sound_approval(case: Case, flaw: str) -> Case:
    given = [dataclasses.replace(one, flaw=flaw) if one.flaw in SOUND_FLAWS else one for one in case.approvals]
    return dataclasses.replace(case, approvals=tuple(given))


def _each_run(case: Case, **changes: Any) -> Case:
    return dataclasses.replace(case, runs=tuple(dataclasses.replace(run, **changes) for run in case.runs))


def _each_sound_run(case: Case, **changes: Any) -> Case:
    """Only what is whole can be broken: a wrong receipt in place of none would be a gain, and so would one that tells
    of its steps in place of one that does not."""
    whole = WHOLE if "receipt" in changes else SOUND
    sound = [
        dataclasses.replace(run, **changes)
        if run.receipt in whole and set(run.copies) <= {"file", "s3", "mount", "mount, afresh"}
        else run
        for run in case.runs
    ]
    return dataclasses.replace(case, runs=tuple(sound))


def _with_old_consent(case: Case, broken: Case) -> gate.Evidence:
    """The broken world, with the consents as they were given in the whole one."""
    before, after = build(case), build(broken)
    if len(before.approvals) != len(after.approvals) or case.approvals != broken.approvals:
        return after
    return dataclasses.replace(after, approvals=before.approvals)


@settings(max_examples=400)
@given(case=CASES, names=st.lists(st.sampled_from(sorted(BREAKS)), min_size=1, max_size=2))
def test_law_2_breaking_evidence_never_opens(case: Case, names: list[str]) -> None:
    broken = case
    for name in names:
        broken = BREAKS[name](broken)
    if gate.decide(_with_old_consent(case, broken)).allowed:
        assert decided(case)[0], names
