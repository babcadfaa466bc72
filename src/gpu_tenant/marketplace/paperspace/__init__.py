# Copyright (c) 2026 The gpu-tenant authors
# SPDX-License-Identifier: MIT
"""Paperspace's side of the market: its REST, for the same machines, boxes, clock, bill and faults."""
