#!/usr/bin/python
# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: box_key
short_description: Put the team's public key on a box by its password, once
version_added: 0.1.0
description:
  - For platforms that hand out a password (AutoDL). Where a box does not let the key in, the password is used for one
    login, which adds the public key to C(~/.ssh/authorized_keys). Everything after that speaks by the key.
  - The host key must be pinned before (M(tenant.gpu.box_host_key)), so that no other machine is told the password. It
    is never sent through a jump host.
  - The password reaches ssh through the environment of one process. It is in no argument, file, log, record or journal.
  - Without a password, a box that does not let the key in is a failure that says where to put one.
options:
  password:
    description:
      - The password of the login, from a vault.
      - If empty, the environment variable of the controller that is named after the box, in capitals and with C(_) for
        what is no letter or digit, such as E(TENANT_PASSWORD_A1) for C(a1). Without either there is none.
    type: str
    default: ""
  public_key_file:
    description: The public key, a file on the controller. Its private key is what ssh offers.
    type: path
    required: true
extends_documentation_fragment:
  - tenant.gpu.attributes
  - tenant.gpu.attributes.action_plugin
attributes:
  check_mode:
    support: none
    details:
      - A check run connects to no box that it sees for the first time, so it does nothing.
  diff_mode:
    support: none
  idempotent:
    support: full
seealso:
  - module: tenant.gpu.box_host_key
  - module: tenant.gpu.box_login
author:
  - The gpu-tenant authors (@gpu-tenant)
"""

EXAMPLES = r"""
- name: Put our key on the box
  tenant.gpu.box_key:
    password: "{{ vault_password_of_a1 }}"
    public_key_file: ~/.ssh/id_ed25519.pub
"""

RETURN = r"""
failure:
  description: Kind of failure, what happened, what is safe, what to do.
  returned: on failure
  type: dict
"""
