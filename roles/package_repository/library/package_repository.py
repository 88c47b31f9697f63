#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""A package repository that came as files: what of it is here, and the apt source that names it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from urllib.parse import quote

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.onprem_llm_sums import is_right
from ansible.module_utils.onprem_llm_write import put

DOCUMENTATION = r"""
module: package_repository
short_description: A signed package repository in a folder of the host, for apt or dnf
description:
  - C(look) says which files are missing or not as they should be. C(present) writes the apt source and removes what
    does not belong there: files, links and folders. C(absent) takes both away. apt checks the signature each time;
    nothing here marks the repository as trusted.
options:
  state:
    description: What to do.
    type: str
    choices: [look, present, absent]
    required: true
  path:
    description: Folder of the repository on the host, all of it ours.
    type: path
    required: true
  source:
    description: Folder on the control host that it comes from, for what C(look) returns.
    type: path
  files:
    description: Path, size and sha256 of every file; C(key.asc) is the public key.
    type: list
    elements: dict
    default: []
  sources_file:
    description: File of the apt source, or (its name ends in C(.repo)) of dnf's.
    type: path
    default: /etc/apt/sources.list.d/onprem-llm-packages.sources
author: the onprem-llm authors
"""

EXAMPLES = r"""
- name: Name the repository to apt
  package_repository:
    state: present
    path: /srv/onprem-llm/packages
    files: "{{ package_repository_files }}"
"""

RETURN = r"""
folders:
  description: What is missing, as M(send_files) takes it.
  type: list
  returned: look
"""

KEY = "key.asc"
REPOSITORY = Path("/etc/yum.repos.d/onprem-llm-packages.repo")


def missing(folder, files):
    """Return the paths of the files that are to be sent."""
    return [one["path"] for one in files if not is_right(folder, one)]


def make_folders(folder, files):
    """Make the folders that are not there, readable for apt's own user whatever the umask is."""
    wanted = {folder, *(folder.joinpath(one["path"]).parent for one in files)}
    every = {above for one in wanted for above in (one, *one.parents) if not above.exists()}
    for one in sorted(every):
        one.mkdir(exist_ok=True)
        one.chmod(0o755)


def strays(folder, files):
    """Return what lies in the folder and does not belong there; of a folder with nothing that does, itself alone."""
    known = {folder / one["path"] for one in files}
    needed = {above for path in known for above in path.parents}
    found = []
    for base, folders, names in os.walk(str(folder)):
        wrong = [name for name in folders if Path(base, name) not in needed]
        folders[:] = [name for name in folders if name not in wrong]
        found += [Path(base, name) for name in (*wrong, *names) if name in wrong or Path(base, name) not in known]
    return sorted(found)


def remove(path):
    """Remove a file, a link or a folder with all that is in it; what a link leads to stays."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(str(path))
    else:
        path.unlink()


def sources_text(folder, key):
    """Return the apt source: deb822, with the key in it, so that no other key counts for it and it for no other."""
    lines = [line.strip() or "." for line in key.strip().splitlines()]
    return "\n".join(
        [
            "# Written by onprem-llm: packages that came with a bundle.",
            "Types: deb",
            "URIs: file:" + quote(str(folder)),
            "Suites: ./",
            "Signed-By:",
            *(" " + line for line in lines),
            "",
        ]
    )


def repository_text(folder):
    """Return the .repo file for dnf: the index is signed, and has the sums of all packages.

    Packages of module streams are offered whichever stream a host has enabled: the bundle has one choice alone.
    """
    address = "file://" + quote(str(folder))
    return (
        "# Written by onprem-llm: packages that came with a bundle.\n[onprem-llm-packages]\nname=onprem-llm\n"
        f"baseurl={address}\nenabled=1\ngpgcheck=0\nrepo_gpgcheck=1\ngpgkey={address}/{KEY}\nmetadata_expire=1\n"
        "module_hotfixes=1\n"
    )


def present(folder, files, sources_file, check_mode):
    """Write the source and remove strays; return whether anything changed."""
    wrong = strays(folder, files)
    if sources_file.suffix == ".repo":
        text = repository_text(folder)
    else:
        text = sources_text(folder, (folder / KEY).read_text(encoding="ascii"))
    same = sources_file.is_file() and sources_file.read_text(encoding="utf-8") == text
    if not check_mode:
        if not same:
            put(sources_file, text, 0o644)
        for path in wrong:
            remove(path)
    return bool(wrong) or not same


def absent(folder, sources_file, check_mode):
    """Take the source, of either kind, and the folder away; return whether there was one."""
    there = [path for path in {sources_file, REPOSITORY, folder} if os.path.lexists(str(path))]
    for path in there if not check_mode else []:
        remove(path)
    return bool(there)


def act(options, check_mode):
    """Return what the module answers."""
    folder, files, sources_file = Path(options["path"]), options["files"], Path(options["sources_file"])
    if options["state"] == "look":
        send = missing(folder, files)
        if send and not check_mode:
            make_folders(folder, files)
        order = {"source": options["source"], "path": str(folder), "files": files, "send": send}
        return {"changed": False, "folders": [order] if send else []}
    if options["state"] == "absent":
        return {"changed": absent(folder, sources_file, check_mode)}
    return {"changed": present(folder, files, sources_file, check_mode)}


def main():
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["look", "present", "absent"], "required": True},
            "path": {"type": "path", "required": True},
            "source": {"type": "path"},
            "files": {"type": "list", "elements": "dict", "default": []},
            "sources_file": {"type": "path", "default": "/etc/apt/sources.list.d/onprem-llm-packages.sources"},
        },
        supports_check_mode=True,
    )
    try:
        answer = act(module.params, module.check_mode)
    except (OSError, ValueError) as error:
        module.fail_json(msg=f"package repository in {module.params['path']}: {error}", invocation={})
        return
    module.exit_json(invocation={}, **answer)


if __name__ == "__main__":
    main()
