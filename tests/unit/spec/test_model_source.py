"""`model:` in model.yaml: a folder, or a model on a hub."""

import pytest

from onprem_llm.errors import InvalidError
from onprem_llm.planning.revisions import canonical_text
from onprem_llm.spec.deployment import Deployment, parse_deployment
from onprem_llm.spec.model_source import parse_source

REST = "api_version: 1\nname: a\nengine: {image: 'x:v1'}\nmodel: "


def parsed(model: str) -> Deployment:
    return parse_deployment(REST + model, "model.yaml")


def test_a_text_is_a_folder_and_the_book_keeps_it_as_it_was() -> None:
    for written in ("./m", "{source: path, path: ./m}"):
        deployment = parsed(written)
        assert deployment.model.path == "./m"
        assert not deployment.model.on_hub
        assert "\nmodel: ./m\n" in canonical_text(deployment, "w")


def test_a_model_on_a_hub_comes_back_from_the_book_as_it_was() -> None:
    deployment = parsed("{source: huggingface, id: Qwen/Qwen3-0.6B, revision: v1, exclude: ['*.md']}")
    assert str(deployment.model) == "huggingface:Qwen/Qwen3-0.6B@v1"
    assert parse_deployment(canonical_text(deployment, "w"), "book").model == deployment.model


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("3", "model (line 4): found 3, expected a folder (text) or a mapping with `source`"),
        ("''", "found an empty text"),
        ("[a]", "found a list"),
        ("{source: hugginface, id: a/b}", "model.source (line 4): found the text 'hugginface'"),
        ("{id: a/b}", "model.source (line 4): is missing"),
        ("{source: huggingface, idd: a/b}", "model.idd (line 4): unknown key; did you mean id?"),
        ("{source: huggingface}", "id is missing"),
        ("{source: huggingface, id: ../b}", "id: found '../b'"),
        ("{source: huggingface, id: 'a/b/c'}", "id: found 'a/b/c'"),
        ("{source: modelscope, id: b}", "expected owner/name"),
        ("{source: huggingface, id: a/b, revision: ../x}", "revision: found '../x'"),
        ("{source: huggingface, id: a/b, include: x}", "model.include (line 4): found the text 'x', expected a list"),
        ("{source: huggingface, id: a/b, path: x}", "path belongs to `source: path`"),
        ("{source: path, id: a}", "id: only for a hub"),
    ],
)
def test_what_is_wrong_is_named_with_its_path(model: str, said: str) -> None:
    with pytest.raises(InvalidError) as raised:
        parsed(model)
    assert said in str(raised.value.details)


def test_the_command_line_names_a_model() -> None:
    source = parse_source("modelscope:a/b@refs/pr/1", exclude=("*.md",))
    assert (source.source, source.id, source.revision, source.exclude) == ("modelscope", "a/b", "refs/pr/1", ("*.md",))
    assert parse_source("huggingface:gpt2").wanted_revision == "main"
    assert parse_source("modelscope:a/b").wanted_revision == "master"


@pytest.mark.parametrize("text", ["huggingface:", "huggingface:a/b@", "hub:a/b", "huggingface:a b", "modelscope:b"])
def test_a_wrong_name_on_the_command_line(text: str) -> None:
    with pytest.raises(InvalidError, match=r"expected|is missing"):
        parse_source(text)


def test_choices_of_files_are_told_apart_and_order_does_not_count() -> None:
    one = parse_source("huggingface:a/b", include=("x", "y"))
    assert one.selection == parse_source("huggingface:a/b", include=("y", "x")).selection
    assert one.selection != parse_source("huggingface:a/b", exclude=("x", "y")).selection
    assert parse_source("huggingface:a/b").selection == ""
