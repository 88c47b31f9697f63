"""The root file system of a Debian or Ubuntu host, by mmdebstrap."""

import tempfile
from pathlib import Path

from onprem_llm.lab import machine
from onprem_llm.lab.mirrors import Mirror
from onprem_llm.lab.root_file_systems import carry_out, ensure_tool
from onprem_llm.lab_systems import System


def make(system: System, mirror: Mirror, sources: str, archive: Path) -> None:
    """Write the tar of a minimal system with its base packages. OnpremError."""
    ensure_tool("mmdebstrap", ["mmdebstrap"])
    settings = [f"--aptopt={line.rstrip(';')}" for line in machine.apt_settings()]
    with tempfile.TemporaryDirectory(prefix="onprem-llm-lab-") as folder:
        listing = Path(folder, "lab.sources")
        listing.write_text(sources, "utf-8")
        argv = ["mmdebstrap", "--variant=minbase", f"--include={','.join(system.base)}", *settings]
        carry_out([*argv, system.suite, str(archive), str(listing)], system, mirror)
