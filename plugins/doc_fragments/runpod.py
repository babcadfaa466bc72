# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of everything that speaks with RunPod."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  api_url:
    description:
      - Base URL of the REST API, version 1. Set it to a local marketplace, with C(/v1) behind its address, to rehearse.
      - If not set, the environment variable E(RUNPOD_REST_URL) is used.
    type: str
    default: https://rest.runpod.io/v1
  api_key:
    description:
      - The account's API key. Prefer O(api_key_file), which keeps the key out of every variable.
      - If neither this nor O(api_key_file) is set, the environment variable E(RUNPOD_API_KEY) is used.
    type: str
  api_key_file:
    description:
      - File on the controller that holds the API key and nothing else.
      - Wins over the environment variable E(RUNPOD_API_KEY), loses to O(api_key).
    type: path
  api_timeout_s:
    description:
      - Seconds that one request may take before it counts as unanswered.
    type: int
    default: 30
notes:
  - Runs where the API key is, so delegate it to C(localhost).
  - The key is sent in a header only. It never appears in a URL, a process list, a log line, an error or a record.
seealso:
  - name: RunPod API reference
    description: The vendor's description of the API.
    link: https://docs.runpod.io/api-reference/overview
"""
