# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where vast.ai is. Together with the fragment ``rental``."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  api_url:
    description:
      - Base URL of the API. Set it to a local marketplace to rehearse.
      - If not set, the environment variable E(VAST_URL) is used.
    type: str
    default: https://console.vast.ai
seealso:
  - name: vast.ai API reference
    description: The vendor's description of the API.
    link: https://docs.vast.ai/api-reference
"""
