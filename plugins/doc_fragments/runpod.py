# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where RunPod is. Together with the fragment ``rental``."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  api_url:
    description:
      - Base URL of the REST API. Set it to a local marketplace to rehearse.
      - Version 2 is spoken where it is, else version 1, which RunPod retires. An address that ends in C(/v2) or C(/v1)
        says which.
      - If not set, the environment variable E(RUNPOD_REST_URL) is used.
    type: str
    default: https://api.runpod.io
seealso:
  - name: RunPod API reference
    description: The vendor's description of the API.
    link: https://docs.runpod.io/api-reference/overview
"""
