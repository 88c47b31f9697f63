#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Put a certificate and its key where they are used: one from our authority, or one that a person gave."""

from __future__ import annotations

import time
from pathlib import Path

from ansible.module_utils import onprem_llm_certificates as certificates
from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: certificate_store
short_description: Put a certificate and its key where they are used
description:
  - Without O(private_key) takes the key that C(certificate_request) has made on this host.
  - With it, checks what a person gave before anything is written - the two belong together, it is good today, and each
    certificate of the chain is signed by the next.
options:
  path:
    description: File of the certificate.
    type: path
    required: true
  key:
    description: File of the key; certificate, chain and key go into one file where it is left out.
    type: path
  certificate:
    description: The certificate in PEM, with its chain. Without it only O(authority) is written.
    type: str
    default: ""
  private_key:
    description: A given key in PEM.
    type: str
  authority:
    description: Our authority's certificate, to be written beside as C(ca.crt).
    type: str
    default: ""
author: the onprem-llm authors
"""

EXAMPLES = r"""
- name: Use the site's certificate
  certificate_store:
    path: /srv/onprem-llm/gateway/secrets/gateway.pem
    certificate: "{{ chain }}"
    private_key: "{{ key }}"
  no_log: true
"""

RETURN = r"""#"""


def checked(text, key_text):
    """Return (chain, key) of what a person gave, in order. Raises CertificateError that names what is wrong."""
    chain, key = certificates.chain_of(text), certificates.key_of(key_text)
    if not chain:
        raise certificates.CertificateError(
            "the certificate's file holds no certificate; expected PEM text from -----BEGIN CERTIFICATE----- on"
        )
    if "ENCRYPTED" in key_text:
        raise certificates.CertificateError(
            "the key has a passphrase, and a gateway that starts at night has nobody to type it; "
            "write it without one: openssl pkey -in KEY -out NEW"
        )
    if not key:
        raise certificates.CertificateError(
            "the key's file holds no private key; expected PEM text from -----BEGIN PRIVATE KEY----- on"
        )
    _check_dates(chain[0])
    if certificates.public_key(certificate=chain[0]) != certificates.public_key(key=key):
        raise certificates.CertificateError(
            "the key does not belong to the certificate; give the key that its request was made with, and put the "
            "server's own certificate first in the file"
        )
    for number, (one, issuer) in enumerate(zip(chain, chain[1:]), 1):
        if not certificates.is_from(one, issuer):
            raise certificates.CertificateError(
                f"certificate {number} of the file is not signed by certificate {number + 1}; expected the server's "
                "own first, then the one that signed it, and so on"
            )
    return chain, key


def _check_dates(certificate):
    begins, ends = certificates.dates(certificate)
    if ends < time.time():
        raise certificates.CertificateError(
            f"the certificate expired on {certificates.day(ends)}; expected one that is good today"
        )
    if begins > time.time():
        raise certificates.CertificateError(
            f"the certificate is good from {certificates.day(begins)} on; expected one that is good today"
        )


def ours(params):
    """Return (chain, key) of what our authority has signed for the key that waits here."""
    chain = certificates.chain_of(params["certificate"])
    key = certificates.text_of(waiting(params))
    if not key or certificates.public_key(certificate=chain[0]) != certificates.public_key(key=key):
        raise certificates.CertificateError("the signed certificate is for another key; run the same command again")
    return chain, key


def waiting(params):
    """Return where the new key lies until it is used."""
    return Path(params["path"]).with_name(".next-key")


def wanted_files(params):
    """Return {path: (text, mode)}; the key stands before its certificate, so that a cut leaves what is made anew."""
    path, files = Path(params["path"]), {}
    if params["authority"]:
        files[path.with_name("ca.crt")] = (params["authority"], 0o644)
    if params["certificate"]:
        given = params["private_key"]
        chain, key = checked(params["certificate"], given) if given is not None else ours(params)
        if params["key"]:
            files[Path(params["key"])] = (key, 0o600)
        files[path] = ("".join(chain), 0o644) if params["key"] else ("".join([*chain, key]), 0o600)
    return files


def store(params, check_mode):
    """Write what differs; return whether anything did."""
    files = wanted_files(params)
    differ = {path: value for path, value in files.items() if is_other(path, *value)}
    if not check_mode:
        for path, (text, mode) in differ.items():
            certificates.write(path, text, mode)
        if params["certificate"] and params["private_key"] is None:
            waiting(params).unlink()
    return bool(differ)


def is_other(path, text, mode):
    """Return whether a file is not what it shall be."""
    return certificates.text_of(path) != text or path.stat().st_mode & 0o777 != mode


def main():
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "key": {"type": "path", "no_log": False},  # a path
            "certificate": {"type": "str", "default": ""},
            "private_key": {"type": "str", "no_log": True},
            "authority": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    try:
        changed = store(module.params, module.check_mode)
    except (certificates.CertificateError, OSError, ValueError) as error:
        module.fail_json(msg=f"certificate for {module.params['path']}: {error}", invocation={})
    module.exit_json(changed=changed, invocation={})


if __name__ == "__main__":
    main()
