# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: vast_ssh_key
short_description: Register a public SSH key with a vast.ai account
version_added: 0.1.0
author: The gpu-tenant authors (@gpu-tenant)
description:
  - Makes a public SSH key present on, or absent from, a vast.ai account.
  - Keys are compared by type and key material. A comment does not make another key.
  - A box gets the keys that the account has when the box is rented, so register the key first.
  - A private key is refused before anything is sent.
extends_documentation_fragment:
  - tenant.gpu.rental
  - tenant.gpu.vast
  - tenant.gpu.attributes
  - tenant.gpu.attributes.actiongroup_vast
  - tenant.gpu.attributes.rental_action
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  public_key:
    description:
      - The public key, one line as in a C(.pub) file.
      - Exactly one of O(public_key) and O(public_key_file) is required.
    type: str
  public_key_file:
    description:
      - A C(.pub) file to read the public key from.
    type: path
  state:
    description:
      - Whether the account has the key.
    type: str
    choices: [present, absent]
    default: present
seealso:
  - module: tenant.gpu.vast_instance
"""

EXAMPLES = r"""
- name: Register the team's key before anything is rented
  tenant.gpu.vast_ssh_key:
    public_key_file: ~/.ssh/id_ed25519.pub
    api_key_file: ~/.config/vastai/vast_api_key
  delegate_to: localhost

- name: Remove a key
  tenant.gpu.vast_ssh_key:
    public_key: ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIG5vdGFyZWFsa2V5bm90YXJlYWxrZXlub3RhcmVhbGtl
    state: absent
  delegate_to: localhost
"""

RETURN = r"""
ssh_key:
  description: The key as the account has it.
  returned: success
  type: dict
  contains:
    id:
      description: The account's number for it, null when it is absent or, in check mode, not yet there.
      type: int
      sample: 4711
    type:
      description: The type of the key.
      type: str
      sample: ssh-ed25519
    public_key:
      description: Type and key material, without the comment.
      type: str
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.public_keys import read_public_key
from ..module_utils.vast.keys import ensure_ssh_key
from ..module_utils.vast.options import client_of, run_module

SPEC = {
    "public_key": {"type": "str", "no_log": False},
    "public_key_file": {"type": "path", "no_log": False},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
}
_EITHER = [("public_key", "public_key_file")]
RULES = {"mutually_exclusive": _EITHER, "required_one_of": _EITHER}


def act(module: AnsibleModule) -> dict[str, Any]:
    options = module.params
    text = options["public_key"] or read_public_key(options["public_key_file"])
    return ensure_ssh_key(client_of(options), text, options["state"], module.check_mode)


def main() -> None:
    run_module(act, argument_spec=SPEC, **RULES)


if __name__ == "__main__":
    main()
