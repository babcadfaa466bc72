# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  hours_expected:
    description: Hours of training over which one-time costs are spread.
    type: float
    default: 4.0
  download_gb:
    description: GB that the box will download (image, code, data).
    type: float
    default: 5.0
  upload_gb:
    description: GB that will be brought home.
    type: float
    default: 1.0
  assumptions:
    description:
      - What the market does not publish. The sources of the defaults stand in docs/vast.md.
      - Our own experience, if there is any, is weighed against them.
    type: dict
    suboptions:
      hours_to_outbid:
        description: Hours that an interruptible box runs before a higher bid wins, when it bids the least that runs.
        type: float
        default: 6.0
      margin_that_doubles:
        description: Bidding this share above the least that runs doubles O(assumptions.hours_to_outbid).
        type: float
        default: 0.1
      hours_lost_per_interruption:
        description: Hours of work done again, and of booting, for each interruption.
        type: float
        default: 0.25
      hours_to_recover:
        description: Hours until a host that failed is given up and its box is replaced.
        type: float
        default: 1.0
      boot_failure_odds:
        description: Share of boxes on verified hosts that never come up or fail the probe.
        type: float
        default: 0.2
      boot_failure_odds_unverified:
        description: The same on hosts that the market has not verified.
        type: float
        default: 0.58
      hours_per_failed_boot:
        description: Hours that such a box bills before it is given back.
        type: float
        default: 0.1
"""
