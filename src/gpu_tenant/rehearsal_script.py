# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What a rehearsal plays: faults from the start, steps that wait for a condition, and what must hold in the end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from ansible_collections.tenant.gpu.plugins.module_utils.failures import TenantFailure

from gpu_tenant.marketplace import faults
from gpu_tenant.observation import Observation

SHIPPED = Path(__file__).parent / "rehearsals"
CONDITIONS = ("rented", "training", "checkpoint", "pulled", "lost", "step", "looks")
DEEDS = ("preempt", "release", "inject", "clear", "pass_s")
EXPECTATIONS = ("interruptions", "resumed", "most_boxes", "least_machines")
_KEYS = ("what", "pull_every_s", "faults", "steps", "expect")
_LOST = ("outbid", "stopped", "exited", "offline", "scheduling", "absent")


@dataclass(frozen=True)
class Step:
    """:param when: conditions that must all be true; ``looks`` counts looks since the step before.

    :param do: one deed with its options.
    """

    when: Mapping[str, Any]
    do: Mapping[str, Any]
    tell: str


@dataclass(frozen=True)
class Script:
    """What to play, and what to hold against the run in the end."""

    name: str
    what: str
    pull_every_s: float = 10.0
    faults: tuple[Mapping[str, Any], ...] = ()
    steps: tuple[Step, ...] = ()
    expect: Mapping[str, Any] = field(default_factory=dict)

    @property
    def passes_s(self) -> float:
        """Seconds that its steps let pass."""
        return sum(float(step.do.get("pass_s", 0.0)) for step in self.steps)


def shipped() -> list[str]:
    return sorted(path.stem for path in SHIPPED.glob("*.yml"))


def read(script: str) -> Script:
    """The shipped script of this name, or the file at this path. TenantFailure (``config``) for one that is none."""
    path = SHIPPED / f"{script}.yml" if script in shipped() else Path(script).expanduser()
    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        why = f"there is no rehearsal {script}: {error.strerror}"
        raise _bad(why, f"name one of {', '.join(shipped())}, or the path of a file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise _bad(f"{path} is not YAML: {' '.join(str(error).split())}", "correct the file") from error
    try:
        return _script(path.stem, given)
    except (ValueError, TypeError) as error:
        raise _bad(f"{path}: {error}", "docs/rehearsals.md has all keys") from error


def _bad(what: str, fix: str) -> TenantFailure:
    return TenantFailure("config", what, safe="nothing was started", fix=fix)


def _script(name: str, given: Any) -> Script:
    _known("a rehearsal", given, _KEYS)
    pull = float(given.get("pull_every_s", 10.0))
    if not 0.0 <= pull < float("inf"):
        raise ValueError("pull_every_s must be a number of seconds, and not negative")
    at_start = tuple(_fault(number, fault) for number, fault in enumerate(given.get("faults") or [], 1))
    steps = tuple(_step(number, step) for number, step in enumerate(given.get("steps") or [], 1))
    if not at_start and not steps:
        raise ValueError("it has neither faults nor steps, so nothing would be rehearsed")
    expect = dict(_known("expect", given.get("expect") or {}, EXPECTATIONS))
    return Script(name, str(given.get("what") or name), pull, at_start, steps, expect)


def _step(number: int, given: Any) -> Step:
    _known(f"step {number}", given, ("when", "do", "tell"))
    when = _known(f"when of step {number}", given.get("when") or {}, CONDITIONS)
    deed = _known(f"do of step {number}", given.get("do") or {}, DEEDS)
    if len(deed) != 1:
        raise ValueError(f"step {number} does {len(deed)} things; one of {', '.join(DEEDS)} is wanted")
    if "inject" in deed:
        _fault(number, deed["inject"])
    if "pass_s" in deed and not _is_span(deed["pass_s"]):
        raise ValueError(f"do.pass_s of step {number} is {deed['pass_s']!r}, and a number of seconds is wanted")
    for key in ("step", "looks"):
        if key in when and (not isinstance(when[key], int) or isinstance(when[key], bool)):
            raise ValueError(f"when.{key} of step {number} is {when[key]!r}, and a whole number is wanted")
    return Step(when, deed, str(given.get("tell") or next(iter(deed))))


def _is_span(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < float("inf")


def _fault(number: int, given: Any) -> Mapping[str, Any]:
    """A fault of the marketplace, checked before anything starts."""
    fault = _known(f"fault {number}", given)
    faults.fault_in(dict(fault), f"fault {number}")
    return fault


def _known(what: str, given: Any, keys: tuple[str, ...] = ()) -> Mapping[str, Any]:
    if not isinstance(given, dict):
        raise ValueError(f"{what} must be a mapping")
    strangers = [str(key) for key in given if keys and key not in keys]
    if strangers:
        raise ValueError(f"{what} has unknown keys {', '.join(strangers)}; known are {', '.join(keys)}")
    return given


def is_true(when: Mapping[str, Any], seen: Observation, pulled: bool, looks: int) -> bool:
    """Whether every condition of a step holds at this look."""
    facts: dict[str, Any] = {
        "rented": seen.item is not None,
        "training": seen.run_state == "running",
        "checkpoint": has_checkpoint(seen),
        "pulled": pulled and seen.run_state == "running",
        "lost": seen.provider in _LOST,
    }
    step = seen.run.step if seen.run and seen.run.step is not None else -1
    least = {"step": step, "looks": looks}
    return all(least[key] >= value if key in least else facts[key] is bool(value) for key, value in when.items())


def has_checkpoint(seen: Observation) -> bool:
    """Whether the run is at work, and has saved."""
    cells = seen.run.raw.get("cells", []) if seen.run else []
    return seen.run_state == "running" and any(cell.get("last_checkpoint") for cell in cells)
