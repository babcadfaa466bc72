# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: vast_account_info
short_description: Show how long the money of a vast.ai account lasts
version_added: 0.1.0
author: The gpu-tenant authors (@gpu-tenant)
description:
  - Says what credit is left, what all instances and volumes of the account cost an hour as they are now, how many
    hours that lasts, and what happens by itself meanwhile.
  - Instances without our stamp count too, because they are paid from the same credit.
  - What the provider does not tell is unknown (null), never 0. RV(unknown) says in words what it is, and the
    C(at_least) and C(at_most) values say what is certain all the same.
  - Traffic is billed by the byte and cannot be foreseen, so it is in none of the figures.
extends_documentation_fragment:
  - tenant.gpu.rental
  - tenant.gpu.vast
  - tenant.gpu.attributes
  - tenant.gpu.attributes.info_module
  - tenant.gpu.attributes.actiongroup_vast
options:
  state_dir:
    description:
      - The state store, usually V(tenant_state_dir). It knows which boxes were destroyed, so that a list of the
        provider's that lags behind does not bring one of them back.
    type: path
seealso:
  - module: tenant.gpu.vast_instance_info
"""

EXAMPLES = r"""
- name: Look at the money before anything is rented
  tenant.gpu.vast_account_info:
  delegate_to: localhost
  register: account

- name: Rent nothing on credit that ends within the day
  tenant.gpu.fail:
    what: "the credit lasts {{ account.hours_left_at_least }} hours at least"
    fix: add credit in the provider's console
  when: (account.hours_left_at_least or 0) < 24 and account.burn_at_most != 0
"""

RETURN = r"""
credit:
  description: Dollars of credit left; null when the provider does not say.
  returned: success
  type: float
  sample: 41.37
balance:
  description: What the provider calls the balance of the account; null when it does not say.
  returned: success
  type: float
burn_per_hour:
  description: Dollars an hour that all instances and volumes cost now, without traffic; null when it is not certain.
  returned: success
  type: float
  sample: 0.82
burn_at_least:
  description: The part of it that is certain.
  returned: success
  type: float
burn_at_most:
  description: The most that it can be; null when the provider does not say some price.
  returned: success
  type: float
hours_left:
  description: Hours until the credit is used up at RV(burn_per_hour); null when that is unknown or nothing is used.
  returned: success
  type: float
hours_left_at_least:
  description: Hours at RV(burn_at_most); null when that is unknown or nothing is used.
  returned: success
  type: float
hours_left_at_most:
  description: Hours at RV(burn_at_least); null when the credit is unknown or nothing is used.
  returned: success
  type: float
unknown:
  description: In words, what keeps the figures from being certain.
  returned: success
  type: list
  elements: str
burn:
  description: Where the money goes, the dearest first.
  returned: success
  type: list
  elements: dict
  contains:
    of:
      description: A project, the instances without our stamp, or the volumes.
      type: str
      sample: project vision
    count:
      description: How many they are.
      type: int
    per_hour:
      description: Dollars an hour; null when not certain.
      type: float
    at_least:
      description: The part of it that is certain.
      type: float
clocks:
  description: What happens by itself, the most urgent first.
  returned: success
  type: list
  elements: dict
  contains:
    of:
      description: The account, a box or a volume.
      type: str
    effect:
      description: What happens.
      type: str
    left_s:
      description: Seconds until then, 0 for now, null when nobody knows.
      type: int
    left:
      description: The same in words.
      type: str
    at:
      description: When, by the controller's clock; empty when it is now or unknown.
      type: str
instances:
  description: Number of instances of the account.
  returned: success
  type: int
unstamped:
  description: How many of them are not ours.
  returned: success
  type: int
volumes:
  description: Number of volumes of the account, whosever they are.
  returned: success
  type: int
asked_at:
  description: When it was asked, by the controller's clock.
  returned: success
  type: str
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.vast.money import account_info
from ..module_utils.vast.options import client_of, run_module, store_of


def act(module: AnsibleModule) -> dict[str, Any]:
    return account_info(client_of(module.params), store_of(module.params))


def main() -> None:
    run_module(act, argument_spec={"state_dir": {"type": "path"}})


if __name__ == "__main__":
    main()
