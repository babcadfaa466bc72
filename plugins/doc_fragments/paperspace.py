# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where Paperspace is. Together with the fragment ``rental``."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  api_url:
    description:
      - Base URL of the REST API, version 1. To rehearse, set it to a local marketplace, with C(/paperspace/v1) behind
        its address.
      - If not set, the environment variable E(PAPERSPACE_API_URL) is used.
    type: str
    default: https://api.paperspace.com/v1
seealso:
  - name: Paperspace API reference
    description: The vendor's description of the API.
    link: https://docs.digitalocean.com/reference/paperspace/api-reference/
"""
