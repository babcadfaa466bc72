# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""What an instance is made of: a process with its own root, a container, or nothing."""
