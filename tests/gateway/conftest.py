"""The gateway's fixtures: certificates, and one gateway for each file of tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from kit import TLS_NAME, Kit
from tests.certificates import certificate


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    certificate(folder, "ca", "DNS:ca")
    certificate(folder, "engine", f"DNS:{TLS_NAME}", "ca")
    certificate(folder, "gateway", "DNS:gateway", "ca")
    return folder


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory, certificates: Path) -> Iterator[Kit]:
    made = Kit(tmp_path_factory.mktemp("gateway"), certificates)
    try:
        made.start()
        yield made
    finally:
        made.stop()
