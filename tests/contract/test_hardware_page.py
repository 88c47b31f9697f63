"""docs/hardware.md shows the compatibility table as it is."""

import importlib.util
from pathlib import Path
from types import ModuleType

from onprem_llm.planning.compatibility.table import table

ROOT = Path(__file__).resolve().parents[2]


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hardware_page", ROOT / "docs" / "hardware_page.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_up_to_date() -> None:
    page = load()
    text = page.PAGE.read_text("utf-8")
    assert text == page.made(text, table()), "run: python docs/hardware_page.py"


def test_everything_of_the_table_is_on_the_page() -> None:
    text = load().PAGE.read_text("utf-8")
    known = table()
    for row in known.images:
        for release in row.releases:
            assert f"v{release}{'-' if row.variant else ''}{row.variant}" in text
    assert all(one.url in text for one in known.sources.values())
    assert all(name in text for row in known.capabilities for name in (*row.data_center, *row.other))


def test_another_row_makes_another_page() -> None:
    page = load()
    text = page.PAGE.read_text("utf-8")
    known = table()
    fewer = known.model_copy(update={"images": known.images[1:]})
    assert page.made(text, fewer) != text
