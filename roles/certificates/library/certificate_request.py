#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Say whether a host needs a new certificate, and make key and request for it; the key never leaves the host."""

from __future__ import annotations

import time
from pathlib import Path

from ansible.module_utils import onprem_llm_certificates as certificates
from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: certificate_request
short_description: Make a key and a certificate request where a new certificate is needed
description:
  - One is needed where there is none, key and certificate do not belong together, another authority signed it, its
    names are not O(names), or it ends within 30 days.
  - The new key lies beside the certificate as C(.next-key) until C(certificate_store) takes it over.
options:
  certificate:
    description: File of the certificate.
    type: path
    required: true
  key:
    description: File of the key; the certificate's own file where it is left out.
    type: path
  names:
    description: DNS names and addresses that it is for.
    type: list
    elements: str
    required: true
  authority:
    description: The authority's certificate in PEM.
    type: str
    required: true
  force:
    description: Ask for a new one in any case.
    type: bool
    default: false
author: the onprem-llm authors
"""

EXAMPLES = r"""
- name: Ask for a certificate
  certificate_request:
    certificate: /srv/onprem-llm/secrets/engine.crt
    key: /srv/onprem-llm/secrets/engine.key
    names: [engine.server-1]
    authority: "{{ ca }}"
"""

RETURN = r"""
request:
  description: The request in PEM, empty where none is needed.
  type: str
  returned: always
reason:
  description: Why one is needed, empty where none is.
  type: str
  returned: always
"""


def reason(params):
    """Return why a new certificate is needed, empty where none is."""
    text = certificates.text_of(params["certificate"])
    chain = certificates.chain_of(text)
    key = certificates.key_of(certificates.text_of(params["key"]) if params["key"] else text)
    if params["force"]:
        return "it was asked for"
    if not chain or not key:
        return "there is none"
    try:
        if certificates.public_key(certificate=chain[0]) != certificates.public_key(key=key):
            return "key and certificate do not belong together"
        if not certificates.is_from(chain[0], params["authority"]):
            return "another authority signed it"
        names = certificates.names_of(chain[0])
        _, until = certificates.dates(chain[0])
    except certificates.CertificateError as error:
        return f"it cannot be read: {error}"
    wanted = certificates.normal(params["names"])
    if names != wanted:
        return f"it is for {', '.join(names)}, wanted is {', '.join(wanted)}"
    if until < time.time() + certificates.RENEW_S:
        return f"it ends on {certificates.day(until)}"
    return ""


def request(params):
    """Make a key, keep it beside the certificate, and return the request."""
    certificates.san(params["names"])
    key = certificates.new_key()
    certificates.write(Path(params["certificate"]).with_name(".next-key"), key)
    with certificates.private_file(key) as file, certificates.private_file(CONFIGURATION) as configuration:
        # Names of any length stand in the extension alone; a subject's name ends at 64 letters.
        subject = "/CN=" + certificates.normal(params["names"])[0][:64]
        return certificates.openssl("req", "-new", "-sha256", "-key", file, "-config", configuration, "-subj", subject)


CONFIGURATION = "[req]\ndistinguished_name=name\n[name]\n"


def main():
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "certificate": {"type": "path", "required": True},
            "key": {"type": "path", "no_log": False},  # a path
            "names": {"type": "list", "elements": "str", "required": True},
            "authority": {"type": "str", "required": True},
            "force": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    try:
        why = reason(module.params)
        text = request(module.params) if why and not module.check_mode else ""
    except (certificates.CertificateError, OSError, ValueError) as error:
        module.fail_json(msg=f"certificate request: {error}")
    module.exit_json(changed=bool(why), request=text, reason=why)


if __name__ == "__main__":
    main()
