# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What volumes of one name there are, what a module tells of them, and how they end: the same for every provider."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Callable, Generic, Mapping, Protocol, Sequence, TypeVar

from .box.names import check_name
from .difference import DifferenceTracker
from .failures import TenantFailure
from .rental_account import RentalAccount
from .volume_gate import KeptVolume, delete, pass_gate


class ShownVolume(KeptVolume, Protocol):
    def aspects(self) -> dict[str, Any]:
        """What a module compares before and after, ``id`` among it."""

    def as_result(self) -> dict[str, Any]:
        """What a module returns of it."""


class NamedWish(Protocol):
    """Which volume is meant, and what it shall be."""

    @property
    def project(self) -> str: ...

    @property
    def name(self) -> str: ...

    @property
    def state(self) -> str: ...


OneVolume = TypeVar("OneVolume", bound=ShownVolume)
Read = Callable[[Mapping[str, Any]], "OneVolume | None"]


@dataclass(frozen=True)
class Found(Generic[OneVolume]):
    """The volumes of one name: the one that counts (highest generation, then lowest id), and the others."""

    current: OneVolume | None
    superseded: Sequence[OneVolume] = ()

    @property
    def all(self) -> list[OneVolume]:
        return ([self.current] if self.current else []) + list(self.superseded)


def located(account: RentalAccount[Any], to_volume: Read[OneVolume], project: str, name: str) -> Found[OneVolume]:
    """The volumes of this name. That there is none is said only when two lists agree."""
    found = listed(account, to_volume, project, name)
    return found if found.current else listed(account, to_volume, project, name)


def listed(account: RentalAccount[Any], to_volume: Read[OneVolume], project: str, name: str) -> Found[OneVolume]:
    """The volumes of this name by one list.

    :param to_volume: the volume in a row, None when it is not ours.
    """
    volumes = [volume for volume in map(to_volume, account.client.list_volumes()) if volume is not None]
    ours = [volume for volume in volumes if (volume.stamp.project, volume.stamp.name) == (project, name)]
    # Ids are numbers or texts: of two texts the shorter is the lower, as with numbers.
    ours.sort(key=lambda volume: (-volume.stamp.generation, len(volume.volume_id), volume.volume_id))
    return Found(ours[0] if ours else None, ours[1:])


@dataclass
class Result(Generic[OneVolume]):
    """What came of it; :meth:`as_result` is what a module returns."""

    before: OneVolume | None
    after: OneVolume | None
    found: Found[OneVolume]
    predicted: dict[str, Any] = field(default_factory=dict)
    would: dict[str, Any] | None = None
    gone: list[str] = field(default_factory=list)
    gate: list[dict[str, Any]] = field(default_factory=list)

    def as_result(self) -> dict[str, Any]:
        tracker = DifferenceTracker()
        names = {**(self.before.aspects() if self.before else {}), **(self.after.aspects() if self.after else {})}
        before = self._aspects(self.before, names)
        after = dict(self._aspects(self.after, names), **self.predicted)
        for name in {**before, **after}:
            tracker.compare(name, before.get(name), after.get(name))
        tracker.compare("deleted", [], self.gone)
        result = dict(
            tracker.as_result(),
            volume=self.after.as_result() if self.after else None,
            superseded=[one.as_result() for one in self.found.superseded if one.volume_id not in self.gone],
            gate=self.gate,
        )
        return result if self.would is None else dict(result, would=self.would)

    def _aspects(self, volume: OneVolume | None, names: Mapping[str, Any]) -> dict[str, Any]:
        if volume is None:
            return {"state": "absent", **dict.fromkeys(names)}
        return {"state": "present", **volume.aspects()}


Step = Callable[[Any, Any, bool], Result[Any]]


def converged(
    account: RentalAccount[Any], wish: NamedWish, steps: Mapping[str, Step], check_mode: bool
) -> dict[str, Any]:
    """What a module returns of the volume, brought to the wanted state. TenantFailure names it."""
    try:
        check_name("project", wish.project)
        check_name("volume", wish.name)
        return steps[wish.state](account, wish, check_mode).as_result()
    except TenantFailure as failure:
        failure.box = failure.box or wish.name
        raise


def absent(
    account: RentalAccount[Any],
    wish: NamedWish,
    check_mode: bool,
    *,
    to_volume: Read[OneVolume],
    remember: Callable[[RentalAccount[Any], OneVolume], None],
) -> Result[OneVolume]:
    """Delete every volume of the name; all are judged before the first is touched."""
    found = located(account, to_volume, wish.project, wish.name)
    for volume in found.all:
        remember(account, volume)
    decisions = [pass_gate(account, volume) for volume in found.all]
    result = Result(found.current, None, found, gone=[volume.volume_id for volume in found.all])
    for volume, decision in zip(reversed(found.all), reversed(decisions)):
        shown = {"id": volume.aspects()["id"], "rule": decision.rule, "approval_id": decision.approval_id}
        result.gate.append(shown)
        if not check_mode:
            delete(account, volume)
    return result
