#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Send the request that a user would send, until it is answered."""

from __future__ import annotations

import http.client
import json
import ssl
import time
from pathlib import Path
from urllib.parse import urlsplit

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: readiness
short_description: Send a real request until it is answered
description:
  - A refused connection, a broken one, 502, 503 and 504 mean not yet. Any other status than O(status) is a failure at
    once, with the answer's first lines. No proxy is used.
options:
  url:
    description: Scheme, address and port.
    type: str
    required: true
  path:
    description: Path of the request.
    type: str
    default: /
  method:
    description: Method of the request.
    type: str
    default: GET
  body:
    description: Body of the request; a mapping is sent as JSON.
    type: raw
  status:
    description: Status that is expected.
    type: int
    default: 200
  timeout:
    description: Seconds until it must be answered.
    type: int
    default: 300
  request_timeout:
    description: Seconds that one try may take; none lasts longer than what is left of O(timeout).
    type: int
    default: 120
  key_file:
    description: File of the key on this host, sent as a bearer token.
    type: path
author: the onprem-llm authors
"""

EXAMPLES = r"""
- name: Ask the model
  readiness:
    url: http://10.0.0.11:8000
    path: /v1/chat/completions
    method: POST
    body: {model: tiny, messages: [{role: user, content: hello}], max_tokens: 1}
    key_file: /srv/onprem-llm/secrets/tiny
"""

RETURN = r"""
status:
  description: Status of the answer.
  type: int
  returned: success
seconds:
  description: How long it took until the answer came.
  type: float
  returned: success
"""

NOT_YET = (502, 503, 504)
PAUSE = 1.0  # seconds between two tries
SHOWN = 300  # characters of an answer
LONGEST_ANSWER = 1024 * 1024  # bytes that are read of it


class NotReadyError(Exception):
    """Why the answer did not come; for a person."""


def headers(key_file, has_body):
    """Return the request's headers, the key among them."""
    found = {"Accept": "application/json"}
    if has_body:
        found["Content-Type"] = "application/json"
    if key_file:
        try:
            found["Authorization"] = "Bearer " + Path(key_file).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise NotReadyError(f"the key cannot be read from {key_file}: {error.strerror}") from None
    return found


def ask(params, body, limit):
    """Send the request once and return (status, the answer's text). Raises OSError or HTTPException."""
    address = urlsplit(params["url"])
    timeout = max(min(limit, params["request_timeout"]), 1.0)
    if address.scheme == "https":
        # The host asks itself, by an address that no certificate need name.
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection = http.client.HTTPSConnection(address.hostname, address.port, timeout=timeout, context=context)
    else:
        connection = http.client.HTTPConnection(address.hostname, address.port, timeout=timeout)
    try:
        connection.request(params["method"], params["path"], body=body, headers=headers(params["key_file"], bool(body)))
        answer = connection.getresponse()
        return answer.status, answer.read(LONGEST_ANSWER).decode("utf-8", "replace")
    finally:
        connection.close()


def wait(params):
    """Return (status, seconds). Raises NotReadyError."""
    body = params["body"]
    body = (json.dumps(body) if isinstance(body, (dict, list)) else str(body)).encode() if body else None
    begun = time.monotonic()
    end = begun + params["timeout"]
    while True:
        try:
            status, text = ask(params, body, end - time.monotonic())
            if status == params["status"]:
                return status, round(time.monotonic() - begun, 2)
            last = f"it answered {status}: {text[:SHOWN]}"
            if status not in NOT_YET:
                raise NotReadyError(last)
        except (OSError, http.client.HTTPException) as error:
            last = f"{type(error).__name__}: {error}"
        if time.monotonic() + PAUSE > end:
            raise NotReadyError(f"no answer within {params['timeout']} s; the last try: {last}")
        time.sleep(PAUSE)


def main():
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "required": True},
            "path": {"type": "str", "default": "/"},
            "method": {"type": "str", "default": "GET"},
            "body": {"type": "raw"},
            "status": {"type": "int", "default": 200},
            "timeout": {"type": "int", "default": 300},
            "request_timeout": {"type": "int", "default": 120},
            "key_file": {"type": "path", "no_log": False},
        },
        supports_check_mode=True,
    )
    what = "{method} {url}{path}".format(**module.params)
    try:
        status, seconds = wait(module.params)
    except NotReadyError as error:
        module.fail_json(msg=f"{what} is not answered with {module.params['status']}: {error}")
    module.exit_json(changed=False, status=status, seconds=seconds)


if __name__ == "__main__":
    main()
