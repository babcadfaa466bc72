# SPDX-License-Identifier: MIT
"""Order of imports: Ansible replaces ``sys.intern`` by a function of its own, and torch's compiler does not load after
that. One test process holds both, so torch comes first; without torch (the newest ansible-core's leg) there is nothing
to do.

What commands keep for the user goes into a folder of this run, also where a test starts them.

Property tests have no time for an example: a busy machine would fail them.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import os
import shutil
import tempfile

from hypothesis import HealthCheck, settings

with contextlib.suppress(ImportError):
    importlib.import_module("torch._dynamo")

os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="tenant-cache-")
atexit.register(shutil.rmtree, os.environ["XDG_CACHE_HOME"], ignore_errors=True)
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")
