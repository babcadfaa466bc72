# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where Lambda is. Together with the fragment ``rental``."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  api_url:
    description:
      - Base URL of the REST API, version 1. To rehearse, set it to a local marketplace, with C(/lambda/api/v1) behind
        its address.
      - If not set, the environment variable E(LAMBDA_API_URL) is used.
    type: str
    default: https://cloud.lambda.ai/api/v1
notes:
  - At the provider, all processes of one machine together ask once a second and launch once in 12 seconds, as it wants.
seealso:
  - name: Lambda Cloud API reference
    description: The vendor's description of the API.
    link: https://docs.lambda.ai/api/cloud
"""
