# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""The runner's own lease on the boxes that it works on. Its playbooks join it, so that it does not refuse itself."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from ansible_collections.tenant.gpu.plugins.module_utils import holders, lease, lease_keeper, leases
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore

from gpu_tenant.hosts import BoxHost


@contextlib.contextmanager
def holding(boxes: Sequence[BoxHost], purpose: str) -> Iterator[str]:
    """Hold the leases of ``boxes`` for the body; all of them or none.

    Yields the nonce that goes to the playbooks (:attr:`PlaybookRunner.lease_nonce`). A box whose inventory says
    ``box_lease_from`` (or ``-e``) has its lease taken away from whoever that nonce names.

    :raises TenantFailure: ``lease_held``, naming who has one of them and how to take it over.
    """
    holder = holders.myself()
    nonce = leases.nonce_of(holder)
    with contextlib.ExitStack() as stack:
        for box in boxes:
            project, store = box.required("tenant_project"), StateStore(box.required("tenant_state_dir"))
            kept = leases.opened(store)
            kept.take(lease.Ask(project, box.name, purpose, nonce, holder, over=box.text(lease.TAKE_OVER)))
            stack.callback(kept.release, project, box.name, holder)
            lease_keeper.ensure(store, holder)
        yield nonce
