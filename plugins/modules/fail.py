#!/usr/bin/python
# Copyright: (c) 2026, The gpu-tenant authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: fail
short_description: End a box's play with a failure that says what to do
version_added: 0.1.0
description:
  - Fails like M(ansible.builtin.fail), and also says what is safe, what to do next and of which kind the failure is.
  - The runner turns the kind into its exit code.
options:
  kind:
    description: The kind of failure.
    type: str
    required: true
    choices:
      - budget
      - config
      - evidence_missing
      - gate_refused
      - interrupted
      - lease_held
      - no_offer
      - probe_refused
      - provider
      - training_failed
      - unreachable
  what:
    description: What happened, without the name of the box.
    type: str
    required: true
  safe:
    description: What is certainly unharmed.
    type: str
    required: true
  fix:
    description: What the reader should do next.
    type: str
    required: true
extends_documentation_fragment:
  - tenant.gpu.attributes
attributes:
  check_mode:
    support: full
    description: Fails in check mode too.
  diff_mode:
    support: none
    description: There is nothing to show.
  idempotent:
    support: full
    description: Changes nothing.
author:
  - The gpu-tenant authors (@gpu-tenant)
"""

EXAMPLES = r"""
- name: Stop at a refused box
  tenant.gpu.fail:
    kind: probe_refused
    what: the probe refused this box
    safe: nothing was deployed
    fix: repair the box, then run the same command again
"""

RETURN = r"""
failure:
  description: The four parts and the name of the box.
  returned: always
  type: dict
"""
