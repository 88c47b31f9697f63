"""The commented example of the site's settings is right when the comments are taken away, and names every setting."""

from pathlib import Path

import yaml
from pydantic import BaseModel

from onprem_llm.spec.site import Site, parse_site

EXAMPLE = Path(__file__).resolve().parents[2] / "inventory" / "group_vars" / "all.yml"


def uncommented() -> dict:
    text = EXAMPLE.read_text()
    _, mark, settings = text.partition("onprem_llm_site: {}\n")
    assert mark
    lines = [line.removeprefix("# ") for line in settings.splitlines()]
    return yaml.safe_load("\n".join(lines))


def test_as_it_stands_it_is_all_defaults() -> None:
    assert parse_site(yaml.safe_load(EXAMPLE.read_text())["onprem_llm_site"], "example") == Site()


def test_without_its_comments_it_is_accepted() -> None:
    site = parse_site(uncommented(), "example")
    defaults = Site()
    assert site.data_root == defaults.data_root
    assert site.weights_path == defaults.weights_path
    assert site.open_webui == defaults.open_webui
    assert site.public_port == defaults.public_port


def test_it_names_every_setting() -> None:
    example = uncommented()
    assert set(example) == set(Site.model_fields)
    for name, value in parse_site(example, "example"):
        if isinstance(value, BaseModel):
            assert set(example[name]) == set(type(value).model_fields), name
