"""A bundle with a file of 5 GiB on a FAT disk: refused in one piece, cut into parts, killed, loaded volume by volume.

The disk is a loop mount with Linux's own vfat driver. Where this kernel has none, a user mode Linux does it, which is a
kernel that runs as a process, with this machine's files as its root.
"""

import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.bundle.kit import LAUNCH, Bench, Connected, Keys, weights_files

GIB = 1024**3
LARGE = 5 * GIB
NAME = "model-9.safetensors"
LIMIT = 1500
MODULES = ("fs/fat/fat", "fs/fat/vfat", "fs/nls/nls_cp437", "fs/nls/nls_ascii", "drivers/block/loop")

# What happens on the disk. Each step leaves its exit code and what it said.
SCRIPT = """\
onprem() {{ step=$1; shift; "$PYTHON" -c "$LAUNCH" bundle "$@" > "$OUT/$step.txt" 2>&1; echo $? > "$OUT/$step.rc"; }}
mount -o loop,iocharset=ascii,codepage=437 -t vfat {image} {disk} || exit 1
findmnt -no FSTYPE,SOURCE {disk} > "$OUT/mounted.txt"
onprem whole create --lock {lock} -o {disk}/whole --sign-key {key}
(onprem killed create --lock {lock} -o {disk}/bundle --sign-key {key} --volume-size 4GB) &
while ! ls {disk}/bundle/vol-001/blobs/sha256/*.partial > /dev/null 2>&1; do sleep 0.1; done
sleep 5
kill -9 $(grep -l "{disk}/bundle" /proc/[0-9]*/cmdline | cut -d/ -f3 | grep -vx $$) 2> /dev/null
wait
onprem cut verify {disk}/bundle --allowed-signers {allowed}
onprem created create --lock {lock} -o {disk}/bundle --sign-key {key} --volume-size 4GB
onprem again create --lock {lock} -o {disk}/bundle --sign-key {key} --volume-size 4GB
du -sb {disk}/bundle/vol-001 {disk}/bundle/vol-002 > "$OUT/sizes.txt"
ls {disk}/bundle >> "$OUT/folders.txt"
umount {disk}
mount -o loop,iocharset=ascii,codepage=437 -t vfat {image} {disk} || exit 1
onprem verified verify {disk}/bundle --allowed-signers {allowed}
onprem second load {disk}/bundle/vol-002 --to {site} --allowed-signers {allowed}
onprem first load {disk}/bundle/vol-001 --to {site} --allowed-signers {allowed}
umount {disk}
"""


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A machine with weights of 5 GiB: holes, and marks that tell the parts apart."""
    here = Connected(
        tmp_path / "here", weights=weights_files(100_000), large={NAME: LARGE}, packages=(), pythons=(), images=0
    )
    return Bench(tmp_path, here.make(), Keys(tmp_path / "keys").make())


def install(*packages: str) -> None:
    command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def run_where_vfat_is(script: Path) -> None:
    """Run a script on this kernel, or on a user mode Linux."""
    if shutil.which("modprobe"):
        subprocess.run(["modprobe", "vfat"], check=False, capture_output=True)
    if "\tvfat\n" in Path("/proc/filesystems").read_text():
        subprocess.run(["sh", script], check=True, timeout=LIMIT)
        return
    if not shutil.which("linux.uml"):
        install("user-mode-linux")
    kernel = next(Path("/usr/lib/uml/modules").iterdir()) / "kernel"
    modules = " ".join(str(kernel / f"{name}.ko") for name in MODULES)
    first = script.with_name("init.sh")
    loader = Path(__file__).with_name("uml_modules.py")
    first.write_text(
        f"#!/bin/sh\nexport PATH={shlex.quote(os.environ['PATH'])} HOME=/root\nmount -t proc proc /proc\n"
        f"{sys.executable} {loader} {modules}\nsh {script}\necho o > /proc/sysrq-trigger\nsleep 60\n"
    )
    first.chmod(0o755)
    command = ["linux.uml", "root=/dev/root", "rootfstype=hostfs", "rootflags=/", "rw", "mem=1536M", f"init={first}",
               "con=null", "con0=fd:0,fd:1", "quiet"]  # fmt: skip
    with (script.parent / "kernel.txt").open("wb") as said:
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=said, stderr=said, timeout=LIMIT)


def digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def test_a_file_of_5_gib_on_a_fat_disk(bench: Bench, tmp_path: Path) -> None:
    if not shutil.which("mkfs.vfat"):
        install("dosfstools")
    image, disk, site, out = (tmp_path / name for name in ("disk.img", "disk", "site", "out"))
    disk.mkdir()
    out.mkdir()
    with image.open("wb") as stream:
        stream.truncate(6 * GIB)
    subprocess.run(["mkfs.vfat", "-F", "32", image], check=True, capture_output=True)
    environment = {
        "OUT": str(out), "PYTHON": sys.executable, "LAUNCH": LAUNCH, "ONPREM_LLM_CACHE": str(bench.here.cache),
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""), "TMPDIR": str(tmp_path),
    }  # fmt: skip
    settings = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in environment.items())
    script = tmp_path / "script.sh"
    script.write_text(settings + SCRIPT.format(
        image=image, disk=disk, site=site, lock=bench.here.lock, key=bench.keys.key, allowed=bench.keys.allowed
    ))  # fmt: skip
    run_where_vfat_is(script)
    said = {path.stem: path.read_text() for path in out.glob("*.txt")}
    codes = {path.stem: int(path.read_text()) for path in out.glob("*.rc")}
    print(json.dumps(said, indent=1))
    assert said["mounted"].split()[0] == "vfat"
    assert said["mounted"].split()[1].startswith("/dev/loop")
    assert "takes no files above 4 GiB" in said["whole"]
    assert "--volume-size 4GB" in said["whole"]
    assert "its creation was cut off" in said["cut"]
    expected = {"whole": 3, "cut": 3, "created": 0, "again": 0, "verified": 0, "second": 0, "first": 0}
    assert {name: codes[name] for name in expected} == expected
    assert "nothing to do" in said["again"]
    assert all(int(line.split()[0]) <= 4_000_000_000 for line in said["sizes"].splitlines())
    assert said["folders"].split() == ["vol-001", "vol-002"]
    assert "Still to come: vol-001" in said["second"]
    found = next(site.glob(f"weights/*/Tiny/{NAME}"))
    assert (found.stat().st_size, digest(found)) == (LARGE, digest(bench.here.model / NAME))
    assert not [path for path in (site / "blobs" / "sha256").iterdir() if len(path.name) != 64]
