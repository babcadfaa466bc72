# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What a provider charged, machine by machine."""

from __future__ import annotations

import datetime
from collections.abc import Iterable

from ansible_collections.tenant.gpu.plugins.module_utils.box import records
from ansible_collections.tenant.gpu.plugins.module_utils.vast.api import VastClient
from ansible_collections.tenant.gpu.plugins.module_utils.vast.transformations import charges_by_box

# The provider's clock may be another than ours, and its days begin where it likes.
SLACK_S = 3600.0


def billed(client: VastClient, starts: Iterable[str]) -> dict[str, dict[str, float]]:
    """Dollars by the provider's id, ``total`` and by kind, since the first of ``starts`` (UTC text; ever if none).

    :raises TenantFailure: the provider does not tell.
    """
    begin = min((records.parse_utc(start).timestamp() - SLACK_S for start in starts), default=0.0)
    until = client.provider_now() or datetime.datetime.now(datetime.UTC).timestamp()
    return charges_by_box(client.charges(begin, until + SLACK_S))
