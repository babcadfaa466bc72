# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""A session of boto3, with credentials by its own chain. The models of its services, which take most of a second to
read, are read once for a process; credentials are looked up anew each time."""

from __future__ import annotations

import functools
import importlib.util
from typing import Any


def is_installed() -> bool:
    return importlib.util.find_spec("boto3") is not None


def new_session(profile: str = "", region: str = "") -> Any:
    """:raises botocore.exceptions.ProfileNotFound: there is no such profile."""
    import boto3
    import botocore.session

    core = botocore.session.Session()
    core.register_component("data_loader", _shared_loader())
    return boto3.session.Session(botocore_session=core, profile_name=profile or None, region_name=region or None)


@functools.lru_cache(maxsize=1)
def _shared_loader() -> Any:
    import botocore.session

    return botocore.session.Session().get_component("data_loader")
