# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Before anything is rented or started for a run: whether it lies finished at home, its receipt lost with its store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.tenant.gpu.plugins.module_utils import results_at_home
from ansible_collections.tenant.gpu.plugins.module_utils.results_at_home import Asker, Found
from ansible_collections.tenant.gpu.plugins.module_utils.state_store import StateStore

from gpu_tenant.hosts import BoxHost
from gpu_tenant.observation import Observation


def find(host: BoxHost, spec: Mapping[str, Any], seen: Observation) -> Found | None:
    """:raises TenantFailure: what lies there cannot be proven, and the box would be rented all the same."""
    asker = Asker(host.name, seen.generation, seen.item.provider_id if seen.item else "")
    store, project = StateStore(host.required("tenant_state_dir")), host.required("tenant_project")
    return results_at_home.find(store, project, spec, host.text("tenant_results_dir"), asker)
