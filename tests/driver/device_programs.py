"""Run on a host: take the programs off a cgroup that say which devices its processes may open (cgroup 2).

What gives a device to a running container without telling systemd, as NVIDIA's older hook does, ends here, too: the
kernel lets it through, and systemd knows nothing of it. Prints how many there are at the end.
"""

import ctypes
import os
import struct
import sys

NUMBER = {"x86_64": 321, "aarch64": 280}[os.uname().machine]  # of the system call bpf
DETACH, BY_ID, QUERY, DEVICE = 9, 13, 16, 6


def bpf(command: int, *fields: int, form: str) -> tuple[int, bytes]:
    """Return what the kernel answers, and the argument as it leaves it."""
    argument = ctypes.create_string_buffer(struct.pack(form, *fields).ljust(128, b"\0"), 128)
    answer = ctypes.CDLL(None, use_errno=True).syscall(NUMBER, command, argument, 128)
    if answer < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return answer, argument.raw


def programs(cgroup: int) -> list[int]:
    """Return the ids of the programs that are attached."""
    ids = (ctypes.c_uint32 * 16)()
    _, raw = bpf(QUERY, cgroup, DEVICE, 0, 0, ctypes.addressof(ids), 16, form="<IIIIQI")
    return list(ids[: struct.unpack_from("<I", raw, 24)[0]])


def main(path: str, what: str) -> None:
    """Detach them where `what` says so."""
    cgroup = os.open(path, os.O_RDONLY)
    for one in programs(cgroup) if what == "detach" else ():
        bpf(DETACH, cgroup, bpf(BY_ID, one, form="<I")[0], DEVICE, form="<III")
    print(len(programs(cgroup)))


if __name__ == "__main__":
    main(*sys.argv[1:])
