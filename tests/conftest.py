# SPDX-License-Identifier: MIT
"""Order of imports: Ansible replaces ``sys.intern`` by a function of its own, and torch's compiler does not load after
that. One test process holds both, so torch comes first; without torch (the newest ansible-core's leg) there is nothing
to do.

Property tests have no time for an example: a busy machine would fail them.
"""

from __future__ import annotations

import contextlib
import importlib

from hypothesis import HealthCheck, settings

with contextlib.suppress(ImportError):
    importlib.import_module("torch._dynamo")

settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")
