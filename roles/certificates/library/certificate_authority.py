#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""The site's certificate authority: made once, never replaced; it signs what hosts ask for."""

from __future__ import annotations

import contextlib
import fcntl
import secrets
import socket
import time
from pathlib import Path

from ansible.module_utils import onprem_llm_certificates as certificates
from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: certificate_authority
short_description: Keep a small certificate authority, and sign with it
description:
  - Makes an EC P-256 key and a certificate for ten years in O(path) where there is none; never replaces one.
  - With O(request) signs it for O(names). What the request itself says of names is not looked at.
options:
  path:
    description: Folder of the authority, 0700.
    type: path
    default: /var/lib/onprem-llm/ca
  request:
    description: A certificate request in PEM.
    type: str
  names:
    description: DNS names and addresses that the certificate is for.
    type: list
    elements: str
    default: []
  days:
    description: For how many days; 825 is the most that clients accept.
    type: int
    default: 825
author: the onprem-llm authors
"""

EXAMPLES = r"""
- name: Make the authority
  certificate_authority:
"""

RETURN = r"""
onprem_llm:
  description: The authority's certificate in PEM, under the key C(ca).
  type: dict
  returned: always
certificate:
  description: The signed certificate in PEM.
  type: str
  returned: with O(request)
"""

YEARS_10 = 3650
MOST_DAYS = 825


def make(folder):
    """Make key and certificate; the certificate comes last, so that a run that was cut off is begun again."""
    key = certificates.new_key()
    subject = f"/O=onprem-llm/CN=onprem-llm CA of {socket.gethostname()} {secrets.token_hex(3)}"
    with certificates.private_file(key) as key_file, certificates.private_file(CONFIGURATION) as configuration:
        certificate = certificates.openssl(
            *("req", "-x509", "-new", "-sha256", "-key", key_file, "-config", configuration, "-subj", subject),
            *("-days", str(YEARS_10), "-set_serial", serial()),
        )
    certificates.write(folder / "ca.key", key)
    certificates.write(folder / "ca.crt", certificate)


CONFIGURATION = """[req]
distinguished_name=name
x509_extensions=ca
[name]
[ca]
basicConstraints=critical,CA:TRUE,pathlen:0
keyUsage=critical,keyCertSign,cRLSign
subjectKeyIdentifier=hash
"""


def serial():
    """Return a random serial number; nothing counts, so nothing can be lost."""
    return "0x" + secrets.token_hex(16)


def sign(folder, request, names, days):
    """Return the certificate for a request."""
    extensions = (
        f"{certificates.san(names)}\nbasicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n"
        "extendedKeyUsage=serverAuth\nauthorityKeyIdentifier=keyid\nsubjectKeyIdentifier=hash\n"
    )
    days = min(days, MOST_DAYS, remaining_days(folder))
    with certificates.private_file(extensions) as file:
        return certificates.openssl(
            *("x509", "-req", "-sha256", "-CA", str(folder / "ca.crt"), "-CAkey", str(folder / "ca.key")),
            *("-set_serial", serial(), "-days", str(days), "-extfile", file),
            text=request,
        )


def remaining_days(folder):
    """Return for how long the authority itself is good: what it signs must not outlive it."""
    _, until = certificates.dates(certificates.text_of(folder / "ca.crt"))
    days = int((until - time.time()) // certificates.DAY_S)
    if days < 1:
        raise certificates.CertificateError(
            f"{folder}/ca.crt ended on {certificates.day(until)}. Move {folder} away and run bootstrap again: every "
            "client then needs the new root (onprem-llm tls root)"
        )
    return days


def checked(folder):
    """Raise CertificateError where what is there is no authority any more."""
    certificate, key = certificates.text_of(folder / "ca.crt"), certificates.text_of(folder / "ca.key")
    remedy = (
        f"Bring {folder} back from a backup, or move it away and run bootstrap again: clients need the new root then"
    )
    if not key:
        raise certificates.CertificateError(f"found {folder}/ca.crt without ca.key. {remedy}")
    try:
        fits = certificates.public_key(certificate=certificate) == certificates.public_key(key=key)
    except certificates.CertificateError as error:
        raise certificates.CertificateError(f"{folder}: {error}. {remedy}") from error
    if not fits:
        raise certificates.CertificateError(f"{folder}: ca.key does not belong to ca.crt. {remedy}")
    return certificate


@contextlib.contextmanager
def locked(folder):
    """Let one task at a time make and sign: several hosts ask at once."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main():
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "default": "/var/lib/onprem-llm/ca"},
            "request": {"type": "str"},
            "names": {"type": "list", "elements": "str", "default": []},
            "days": {"type": "int", "default": MOST_DAYS},
        },
        supports_check_mode=True,
    )
    params, folder, answer = module.params, Path(module.params["path"]), {}
    missing = not (folder / "ca.crt").exists()
    if module.check_mode and missing:
        module.exit_json(changed=True, onprem_llm={})
    try:
        with locked(folder):
            if not (folder / "ca.crt").exists():
                make(folder)
            answer["onprem_llm"] = {"ca": checked(folder)}
            if params["request"] and not module.check_mode:
                answer["certificate"] = sign(folder, params["request"], params["names"], params["days"])
    except (certificates.CertificateError, OSError, ValueError) as error:
        module.fail_json(msg=f"certificate authority: {error}")
    module.exit_json(changed=missing, **answer)


if __name__ == "__main__":
    main()
