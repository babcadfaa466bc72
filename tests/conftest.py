# SPDX-License-Identifier: MIT
"""Order of imports: Ansible replaces ``sys.intern`` by a function of its own, and torch's compiler does not load after
that. One test process holds both, so torch comes first; without torch (the newest ansible-core's leg) there is nothing
to do."""

from __future__ import annotations

import contextlib
import importlib

with contextlib.suppress(ImportError):
    importlib.import_module("torch._dynamo")
