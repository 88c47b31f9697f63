# SPDX-License-Identifier: Apache-2.0
"""One sender, many hosts: a chain in which each host checks each piece before it passes it on."""
