# SPDX-License-Identifier: Apache-2.0
"""Measure the lines between hosts, a pair at a time."""
