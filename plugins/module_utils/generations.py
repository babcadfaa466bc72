# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Which generations of a box were used, where a state store that was lost no longer tells.

The provider tells those of the machines that it still has. What came home tells those of machines that are gone:
results lie in a folder of their box and generation, and a second machine of that number would write into it.
"""

from __future__ import annotations

import glob
import os
import re

from .box.names import check_name

# ``<results>/<project>/<run>/<box>/g<generation>``
PLACE = re.compile(r"g([1-9][0-9]{0,8})\Z")


def at_home(results_dir: str | None, project: str, box: str) -> int:
    """The highest generation of the box that has a folder with results, of whatever run; 0 without one."""
    if not results_dir:
        return 0
    root = os.path.join(os.path.abspath(os.path.expanduser(results_dir)), check_name("project", project))
    folders = glob.glob(os.path.join(glob.escape(root), "*", check_name("box", box), "g*"))
    matches = [PLACE.match(os.path.basename(folder)) for folder in folders]
    return max([int(match.group(1)) for match in matches if match], default=0)
