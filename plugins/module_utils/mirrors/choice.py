# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Which mirror a box uses for a class of artifacts: decided by what was measured from that box, never by where it is.

Pure. A source that gave a wrong hash, or its lists but not its files, is never used, however fast it is.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Iterable, Mapping
from urllib.parse import urlsplit

from ..box.http_wire import PLAIN, PROXIED

DIRECT = "direct"
GOOD, WRONG, NO_FILE, STALLED, SLOW, UNREACHABLE = "good", "wrong", "no_file", "stalled", "slow", "unreachable"
# The proxy does not let the host through: no measure of the host at all.
BLOCKED = "blocked"


@dataclass(frozen=True)
class Sample:
    """What one source gave over one route: ``name`` is ``direct`` or the mirror's; ``seconds`` to the proven file."""

    kind: str
    name: str
    url: str
    route: str
    outcome: str
    seconds: float = 0.0
    bytes: int = 0
    why: str = ""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Choice:
    """The source for a class, and how it is reached."""

    name: str
    url: str
    route: str

    def as_dict(self) -> dict[str, str]:
        return asdict(self)


def sample_of(record: Mapping[str, Any]) -> Sample:
    """The sample that :meth:`Sample.as_dict` wrote. TypeError or KeyError when it is none."""
    return Sample(**{key: record[key] for key in Sample.__dataclass_fields__})


def ranked(samples: Iterable[Sample]) -> list[Sample]:
    """Those that can be used, fastest first; on a tie the direct source, then the one that needs no proxy."""
    good = [sample for sample in samples if sample.outcome == GOOD]
    return sorted(good, key=lambda sample: (sample.seconds, sample.name != DIRECT, sample.route != PLAIN, sample.name))


def choose(
    samples: Iterable[Sample], before: Choice | None, margin: float, failed: Iterable[str] = ()
) -> Choice | None:
    """The source to use; None when none works.

    :param before: what is used now: it stays unless another one is ``margin`` times as fast, so that two measurements
        of an equal choice do not change the box. The direct source counts as used where nothing was chosen before.
    :param failed: URLs of sources that failed a real transfer since; one of them is used only where nothing else works.
    """
    avoided = set(failed)
    best = ranked(samples)
    best = [each for each in best if each.url not in avoided] or best
    if not best:
        return None
    fastest = best[0]
    kept = [each for each in best if _is_kept(each, before)]
    winner = kept[0] if kept and kept[0].seconds <= fastest.seconds * margin else fastest
    return Choice(winner.name, winner.url, winner.route)


def _is_kept(sample: Sample, before: Choice | None) -> bool:
    if before is None:
        return sample.name == DIRECT
    return (sample.name, sample.url, sample.route) == (before.name, before.url, before.route)


def with_blame(samples: Iterable[Sample]) -> list[Sample]:
    """A refusal that came through the proxy is the proxy's where the host gives its file without it, or where no tunnel
    to it was opened; else it may be the host's own, and says no more than that the file is not had."""
    known = list(samples)
    alone = {sample.url for sample in known if sample.route == PLAIN and sample.outcome == GOOD}
    return [_blamed(sample, sample.url in alone) for sample in known]


def _blamed(sample: Sample, works_alone: bool) -> Sample:
    doubtful = sample.outcome == BLOCKED and sample.url.startswith("http:") and not works_alone
    return replace(sample, outcome=NO_FILE) if doubtful else sample


def blocked_hosts(samples: Iterable[Sample]) -> list[str]:
    """Hosts that the proxy does not let through."""
    return sorted({urlsplit(each.url).hostname or each.url for each in samples if each.outcome == BLOCKED})


def hub_endpoints(samples: Iterable[Sample]) -> str:
    """Those of a class that work, best first, as the ladder of the fetcher reads them."""
    return " ".join(f"{sample.route}={sample.url}" for sample in ranked(samples))


def exempted(choices: Iterable[Choice], samples: Iterable[Sample]) -> list[str]:
    """URLs that are to be reached past the proxy: what was chosen so, and what works without it and not through it."""
    found = [choice.url for choice in choices if choice.route == PLAIN]
    known = list(samples)
    through = {sample.url for sample in known if sample.route == PROXIED and sample.outcome == GOOD}
    return found + [each.url for each in ranked(known) if each.route == PLAIN and each.url not in through]


def needs_plain_transfers(hub: Iterable[Sample], chosen: Choice | None, hook: str) -> bool:
    """Whether Xet and hf_transfer would hang on this link: mirrors do not have Xet's storage, a proxy of the platform
    stands in the way of both or is there because the link is bad, and hf_transfer waits for ever where packets drop.

    :param hub: the samples of Hugging Face.
    :param hook: the platform's proxy, whichever route was the faster one today.
    """
    is_mirrored = chosen is not None and chosen.name != DIRECT
    return bool(hook) or is_mirrored or any(each.outcome in (STALLED, SLOW) for each in hub)
