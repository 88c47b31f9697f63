#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Documentation of send_files, which is an action plugin and runs on the control host."""

DOCUMENTATION = r"""
module: send_files
short_description: Send large files in verified chunks, resuming what was cut off
description:
  - Sends through the task's own connection, so that passwords for sudo, jump hosts and local connections work as for
    every other task. Each chunk is compared by sha256 before it is written; what an earlier run has sent is compared
    and not sent again; a file that is there with its size and sha256 is left alone.
  - Paths stay below their folder. It may be a link; what is below it may not.
  - Appends a line of JSON with host, done and total (bytes) to the file that the environment variable
    C(ONPREM_LLM_PROGRESS) names, after every chunk.
options:
  folders:
    description: Folders to send from.
    type: list
    elements: dict
    required: true
    suboptions:
      source:
        description: Folder on the control host.
        type: path
        required: true
      path:
        description: Folder on the host.
        type: path
        required: true
      files:
        description: Relative path, size and sha256 of every file. An unknown sha256 may be left out.
        type: list
        elements: dict
        required: true
      send:
        description: Relative paths of the files to send.
        type: list
        elements: str
        required: true
  together:
    description: Send files of 16 MiB and less with others in one remote command each 64 MiB. Those need their sha256.
    type: bool
    default: false
author: the onprem-llm authors
"""

EXAMPLES = r"""
- name: Send a model
  send_files:
    folders:
      - source: /models/tiny
        path: /srv/onprem-llm/weights/tiny
        files:
          - path: model.safetensors
            size: 1024
            sha256: 2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae
        send: [model.safetensors]
"""

RETURN = r"""
sent:
  description: Bytes that were sent.
  type: int
  returned: success
verified:
  description: Paths on the host whose content is known to be right.
  type: list
  returned: success
"""
