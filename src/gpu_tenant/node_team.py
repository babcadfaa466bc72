# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Boxes that ``watch`` looks after for one run with ``nodes``: each is looked at and judged by itself, and what is done
with it is agreed upon with the others (:mod:`decide_together`)."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from gpu_tenant import decide, decide_together
from gpu_tenant.watched import Watched


class Team:
    """:param members: in the order of the run's ``parts``, as far as they are looked after."""

    def __init__(self, members: Sequence[Watched]) -> None:
        self.members = list(members)

    @property
    def missing(self) -> list[str]:
        """Boxes of the run that nobody looks after here."""
        known = {one.box.name for one in self.members}
        return [name for name in self.members[0].spec["parts"] if name not in known]

    def agree(self, free: Collection[Watched]) -> None:
        """Correct what each member that is ``free`` would do alone."""
        busy = next((one for one in self.members if one not in free), None)
        if busy is not None:
            self._put_off(busy)
            return
        for one, action in zip(self.members, decide_together.agreed(self._parts(), self.missing), strict=True):
            one.action = action

    def due(self, kinds: Collection[str]) -> list[Watched]:
        """Members that one playbook of these ``kinds`` is for now."""
        return [one for one in self.members if one.action is not None and one.action.kind in kinds]

    def _put_off(self, busy: Watched) -> None:
        for one in self.due(decide_together.JOINT):
            assert one.action is not None
            if one is not busy:
                one.action = decide.Action(decide.WAIT, f"{one.action.why}; after what is done to {busy.box.name} now")

    def _parts(self) -> list[decide_together.Part]:
        parts = []
        for one in self.members:
            assert one.action is not None
            assert one.situation is not None
            parts.append(
                decide_together.Part(one.box.name, one.situation, one.action, one.lost_its_peers, one.is_wanted)
            )
        return parts


def teams(watched: Sequence[Watched]) -> list[Team]:
    """Those of ``watched`` whose run names them among the ``parts`` of a run with ``nodes``, run by run."""
    found: dict[tuple[str, str, str], list[Watched]] = {}
    for one in watched:
        if one.spec.get("nodes") and one.box.name in one.spec["parts"]:
            found.setdefault((one.project, one.run_id, one.spec["spec_sha256"]), []).append(one)
    return [Team(sorted(members, key=_place)) for members in found.values()]


def _place(one: Watched) -> int:
    return list(one.spec["parts"]).index(one.box.name)
