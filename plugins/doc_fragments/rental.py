# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of everything that speaks with a rental market, whichever it is."""

from __future__ import annotations


class ModuleDocFragment:
    # Together with the fragment of the market, which says where its API is.
    DOCUMENTATION = r"""
options:
  api_key:
    description:
      - The account's API key. Prefer O(api_key_file), which keeps the key out of every variable.
      - If neither this nor O(api_key_file) is set, the market's environment variable is used, E(VAST_API_KEY),
        E(RUNPOD_API_KEY), E(LAMBDA_API_KEY) or E(PAPERSPACE_API_KEY).
    type: str
  api_key_file:
    description:
      - File on the controller that holds the API key and nothing else.
      - Wins over the environment variable, loses to O(api_key).
    type: path
  api_timeout_s:
    description:
      - Seconds that one request may take before it counts as unanswered.
    type: int
    default: 30
notes:
  - Runs where the API key is, so delegate it to C(localhost).
  - The key is sent in a header only. It never appears in a URL, a process list, a log line, an error or a record.
"""

    # What a module needs that rents, stops and ends boxes.
    BOX = r"""
options:
  project:
    description: The project that the box belongs to.
    type: str
    required: true
  name:
    description: The box's name; the inventory host.
    type: str
    required: true
  state_dir:
    description: The state store (C(tenant_state_dir)), where box records, journal, receipts and approvals are.
    type: path
    required: true
  results_dir:
    description:
      - Where results come home to (C(tenant_results_dir)). A generation of the box that has a folder there counts as
        used, so that a state store which was lost gives its number to no second machine.
      - Empty for what the state store and the market alone know.
    type: path
    default: ""
  price_cap:
    description:
      - Most that an hour may cost, compute and disks together, in dollars. This is the consent to spend.
      - Required with O(state=present) and O(state=started).
    type: float
  budget_per_hour:
    description:
      - Most that all boxes of the project may cost an hour together, in dollars, this one included. Nothing is rented
        that does not fit; a box that rests counts with what it costs when it runs.
      - Volumes of the project count with their rate, and what this collection rented on other markets with the price in
        its records. A price that is not known refuses, and names what it is of.
      - Where the market tells a price only once a box runs, the new box counts with its O(price_cap).
      - Asked under the account's lock, so that several processes which share O(state_dir) keep to one budget.
      - Starting a box that exists is not asked, because it was counted when it was rented.
    type: float
  budgets:
    description:
      - What the run and its project may cost in all, in dollars. Nothing is rented unless an hour at O(price_cap) still
        fits into what is left of both.
      - What was spent is what accrued by the journal in O(state_dir) on all boxes that were rented for the run, or for
        the project, disks at rest included; a rate that nobody told counts as O(price_cap). Boxes that were rented less
        than an hour ago hold what is left of that hour.
      - Asked under the account's lock, as O(budget_per_hour) is. Starting a box that exists is not asked.
    type: dict
    default: {}
    suboptions:
      run:
        description:
          - Id of the run that the box is for. It is noted in the journal, so that what the box costs counts for that
            run.
        type: str
      run_usd:
        description: What the run may cost, on all its boxes. Not set means no limit.
        type: float
      project_usd:
        description: What all that is rented for O(project) may cost. Not set means no limit.
        type: float
  wait_s:
    description: Seconds to wait for a box to run, to stop, or to be gone.
    type: int
    default: 900
  verb_keeps:
    description:
      - What each verb keeps, as in the profile's C(platform_verbs), or plainly a dictionary of verb to list of tiers.
      - It can only narrow what this market is known to keep, and so make the gate stricter.
    type: dict
    default: {}
"""
