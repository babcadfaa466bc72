#!/usr/bin/python
# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: box_host_key
short_description: Pin the host key of a box
version_added: 0.1.0
description:
  - Asks the box's ssh server for its public host keys, from the controller, and writes them to the box's own file of
    known hosts in the state store, under the alias C(<box>.g<generation>).
  - The first pin of a generation is taken from O(log), where the box printed its keys when it started, and must be what
    the server shows. Without such a log the first contact is trusted, unless O(expected_keys) says what to expect.
    RV(how) says which it was.
  - Keys that differ from the pinned ones of the same generation are refused; both fingerprints are named.
  - A new generation is a new machine, so its keys replace those of the one before.
options:
  name:
    description: The box. If not set, C(inventory_hostname).
    type: str
  state_dir:
    description: The state store, usually V(tenant_state_dir).
    type: path
    required: true
  endpoint:
    description: Where the box is. If not set, the fact C(box_endpoint).
    type: dict
  expected_keys:
    description:
      - Public host keys or their SHA256 fingerprints from another source, such as the instance's log.
      - With them only a key that is among them is pinned, and such a key may replace a pinned one.
      - Whole keys are also pinned when the server cannot be asked directly, for example behind a jump host.
    type: list
    elements: str
    default: []
  log:
    description:
      - The instance's log, as M(tenant.gpu.vast_logs) read it. Keys of the box's last start are taken from it where its
        onstart printed them (as that of the role C(provision) does).
      - Counts for the first pin of a generation only. A server that shows other keys is then refused, and the
        fingerprints of both are named.
    type: str
    default: ''
  wait_s:
    description: How long to wait for the ssh server of a new box, in seconds.
    type: float
    default: 60
extends_documentation_fragment:
  - tenant.gpu.attributes
  - tenant.gpu.attributes.action_plugin
attributes:
  check_mode:
    support: full
    description: Asks the server and says what would be pinned.
  diff_mode:
    support: full
    description: Shows the file before and after.
  idempotent:
    support: full
    description: The same keys are pinned once.
author: The gpu-tenant authors (@gpu-tenant)
"""

EXAMPLES = r"""
- name: Pin the host key at first contact
  tenant.gpu.box_host_key:
    state_dir: "{{ tenant_state_dir }}"

- name: Accept exactly the key that the console shows
  tenant.gpu.box_host_key:
    state_dir: "{{ tenant_state_dir }}"
    expected_keys: ["SHA256:5ZH8lq3a6nJkUk5nSgq0yXhT3Cj5oYxJkC1aJz0pA3E"]
"""

RETURN = r"""
alias:
  description: The name under which the keys are pinned.
  returned: success
  type: str
  sample: digits-1.g1
path:
  description: The file of known hosts.
  returned: success
  type: str
trust:
  description: Why the keys are trusted, V(first contact), V(instance log), V(pinned) or V(expected).
  returned: success
  type: str
how:
  description: The same as a word for records, V(first_contact), V(instance_log), V(pinned) or V(expected).
  returned: success
  type: str
fingerprints:
  description: Fingerprints of the pinned keys.
  returned: success
  type: list
  elements: str
"""
