# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Whether this controller's clock and a provider's agree. Pure.

What a provider says of time is compared with the provider's own clock, so no decision on a box hangs on ours. Our own
records do: what a run has cost, for how long a lease or an approval holds.
"""

from __future__ import annotations

from ansible_collections.tenant.gpu.plugins.module_utils.box.wording import duration
from ansible_collections.tenant.gpu.plugins.module_utils.lease import CLOCK_TOLERANCE_S


def words(provider_now: float | None, ours: float) -> str:
    """What is to be said of it; empty where the two agree, or the provider does not tell.

    :param provider_now: by its last answer; both in seconds since 1970.
    """
    if provider_now is None or abs(ours - provider_now) <= CLOCK_TOLERANCE_S:
        return ""
    apart, side = duration(abs(ours - provider_now)), "ahead of" if ours > provider_now else "behind"
    return (
        f"the clock of this controller is {apart} {side} its provider's: the moments in our records, and the cost "
        "counted by them, are off by as much; danger clocks go by the provider's. Set it (NTP)"
    )
