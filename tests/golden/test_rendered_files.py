"""Whole rendered files. After a wanted change: UPDATE_GOLDEN=1 pytest tests/golden, and read the diff."""

import os
import shutil

import pytest
from cases import CASES, FILES, rendered

from onprem_llm import fast_yaml


@pytest.mark.parametrize("case", CASES)
def test_files_are_as_kept(case: str) -> None:
    texts = rendered(case)
    folder = FILES / case
    if os.environ.get("UPDATE_GOLDEN"):
        shutil.rmtree(folder, ignore_errors=True)
        for path, text in texts.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, encoding="utf-8")
    kept = {p.relative_to(folder).as_posix(): p.read_text(encoding="utf-8") for p in folder.rglob("*") if p.is_file()}
    assert texts == kept


@pytest.mark.parametrize("case", CASES)
def test_rendering_twice_gives_the_same_bytes(case: str) -> None:
    assert rendered(case) == rendered(case)


@pytest.mark.parametrize("case", CASES)
def test_no_tag_is_started_and_nothing_is_pulled(case: str) -> None:
    for text in (text for path, text in rendered(case).items() if path.endswith("/compose.yaml")):
        for service in fast_yaml.read(text)["services"].values():
            assert "sha256:" in service["image"]
            assert service["pull_policy"] == "never"
