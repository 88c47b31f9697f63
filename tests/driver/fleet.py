"""Hosts whose driver can be brought to another version: NVIDIA's repository on Debian, all of it stand-ins."""

from pathlib import Path

from tests.driver.kit import AptRepository, Host, module_file

from onprem_llm.lab.gpu.stand_in import driver_files

OLD, NEW = "550.163.01", "580.95.05"
PACKAGES = ("nvidia-driver-cuda", "nvidia-kernel-open-dkms", "libnvidia-ml1", "nvidia-persistenced")
REJECTED = "Key was rejected by service"


def archive(folder: Path, kernel: str, *versions: str) -> AptRepository:
    """Return NVIDIA's repository with these versions, and the headers of the kernel that runs."""
    made = AptRepository(folder)
    made.add(f"linux-headers-{kernel}", "1.0", files={f"/lib/modules/{kernel}/build/Makefile": b""})
    made.add("nvidia-container-toolkit", "1.17.8-1")
    for version in versions:
        whole = f"{version}-1"
        module = {f"/lib/modules/{kernel}/updates/dkms/nvidia.ko": module_file(version, "Dual MIT/GPL")}
        made.add("nvidia-driver-cuda", whole, f"nvidia-kernel-open-dkms (= {whole}), libnvidia-ml1 (= {whole})")
        made.add("nvidia-kernel-open-dkms", whole, files=module)
        made.add("libnvidia-ml1", whole)
        made.add("nvidia-persistenced", whole, f"libnvidia-ml1 (= {whole})")
        made.add(f"nvidia-driver-pinning-{version[:3]}", "1")
    return made


def knows(host: Host, tmp: Path, drivers: dict[str, str]) -> None:
    """Have the host's kernel know these drivers: version -> why it refuses to load."""
    for file in driver_files(drivers):
        (tmp / "file").write_text(file.text)
        host.send(tmp / "file", file.path)
        host.run(f"chmod {file.mode:o} {file.path}")


def loaded(host: Host) -> str:
    return host.run("sed -n 's/^NVRM.*x86_64  \\([0-9.]*\\) .*/\\1/p' /proc/driver/nvidia/version", check=False)


def packages(host: Host) -> set[str]:
    """Return the versions of all packages of the driver."""
    form = "${Version}\\n"
    return set(host.run(f"dpkg-query --show --showformat '{form}' {' '.join(PACKAGES)}").split())
