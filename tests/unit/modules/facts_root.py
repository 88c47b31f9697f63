"""A made-up root of a host, with the odd characters that real ones have."""

import os
import shutil
from pathlib import Path

# dash goes by its own name where it is not what sh is; bash behaves otherwise when it is called sh.
OTHERS = (["busybox", "sh"], ["bash"], *([] if os.path.realpath("/bin/sh").endswith("/dash") else [["dash"]]))
SHELLS = [shell for shell in (["sh"], *OTHERS) if shutil.which(shell[0])]
SMI = """#!/bin/sh
echo 'NVIDIA H100 "80GB", HBM3, 81559, 0x233010DE'
echo 'NVIDIA GB10, [N/A], [N/A]'
"""


def made_root(tmp_path: Path) -> Path:
    """Return a root with os-release, kernels, mounts and GPUs on the bus."""
    root = tmp_path / "root"
    texts = {
        "etc/os-release": 'NAME="Odd \\"Linux\\""\nID=debian\n#ID=no\nVERSION_ID="13"\nVERSION_CODENAME=trixie\n',
        "proc/cpuinfo": 'processor\t: 0\nmodel name\t: AMD \\ "EPYC"\x01 \x7f é  9 \nmodel name\t: other\n',
        "proc/meminfo": "MemFree:  1 kB\nMemTotal:       16384004 kB\n",
        "boot/vmlinuz-6.12.48+deb13-amd64": "",
        "boot/vmlinuz-0-rescue-1234": "",
        "boot/vmlinuz-6.1.0-9-amd64.old": "",
        "boot/vmlinuz-6.1 0": "",
        "lib/modules/6.12.57+deb13-amd64/modules.builtin": "",
        "lib/modules/6.12.48+deb13-amd64/modules.builtin": "",
        "lib/modules/6.1.0-gone/updates/dkms/x.ko": "",
    }
    for number, (vendor, kind, device) in enumerate(
        [
            ("0x10de", "0x030200", "0x2330"),
            ("0x10de", "0x040300", "0x22a3"),
            ("0x8086", "0x030000", "0x46a6"),
            ("0x10de", "0x068000", "0x22a3"),
            ("0x10de", "0x068000", "0x22a3"),
            ("0x8086", "0x068000", "0x1234"),
        ]
    ):
        folder = f"sys/bus/pci/devices/0000:0{number}:00.0"
        texts |= {f"{folder}/vendor": vendor, f"{folder}/class": kind, f"{folder}/device": f"{device}\n"}
    texts["proc/mounts"] = mounts(tmp_path)
    for name, text in texts.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(os.fsencode(text))
    return root


def mounts(folder: Path) -> str:
    """Return /proc/mounts with names that it has to escape, one twice, one that is a file, one that is gone."""
    odd = folder / 'data \\ "7"\tx\ny'
    bad = folder / os.fsdecode(b"caf\xe9")
    for path in (odd, bad, folder / "nfs"):
        path.mkdir()
    (folder / "file").write_text("")

    def escaped(path: Path) -> str:
        return str(path).replace("\\", "\\134").replace(" ", "\\040").replace("\t", "\\011").replace("\n", "\\012")

    return "".join(
        f"{device} {escaped(Path(path))} {kind} rw,relatime 0 0\n"
        for device, path, kind in [
            ("overlay", "/", "overlay"),
            ("proc", "/proc", "proc"),
            ("/dev/sda1", folder / "file", "ext4"),
            ("/dev/sda1", odd, "ext4"),
            ("/dev/sda1", folder, "ext4"),
            ("/dev/sdb1", bad, "xfs"),
            ("server:/export", folder / "nfs", "nfs4"),
            ("/dev/loop0", folder, "squashfs"),
            ("/dev/sdc1", folder / "gone", "ext4"),
        ]
    )
