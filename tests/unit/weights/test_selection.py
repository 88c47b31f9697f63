"""Which files are fetched, and which paths may be written."""

import pytest

from onprem_llm.errors import InvalidError
from onprem_llm.spec.model_source import parse_source
from onprem_llm.weights.hubs.hub import HubFile
from onprem_llm.weights.names import name_problem, name_problems
from onprem_llm.weights.selection import Choice, check_code, choose
from onprem_llm.weights.store import INCOMING, JOURNAL, MANIFEST


def chosen(*paths: str, **more: tuple[str, ...]) -> Choice:
    files = [HubFile(path, 1, sha256="0" * 64) for path in paths]
    return choose(parse_source("huggingface:a/b", **more), files)


def paths(choice: Choice) -> list[str]:
    return [file.path for file in choice.files]


def test_weights_texts_and_licences_come() -> None:
    names = ["m.safetensors", "q/m.gguf", "config.json", "merges.txt", "tokenizer.model", "LICENSE", "NOTICE.pdf"]
    assert paths(chosen(*names, "m.bin", "x.onnx", "run.sh", ".gitattributes", ".cache/x.json")) == names


@pytest.mark.parametrize("name", ["LICENSE-weights.bin", "README_x.py", "NOTICE.pkl", "COPYING.so", "LICENSE.exe"])
def test_a_licence_by_name_alone_is_none(name: str) -> None:
    assert paths(chosen("m.safetensors", name)) == ["m.safetensors"]
    with pytest.raises(InvalidError, match=r"no weights|pickled"):
        chosen(name)


def test_a_configuration_that_is_too_large_to_be_looked_at_is_refused() -> None:
    files = [HubFile("m.safetensors", 1, sha256="0" * 64), HubFile("a/config.json", 16_000_001, sha256="0" * 64)]
    with pytest.raises(InvalidError, match=r"a/config\.json: larger than 16 MB"):
        choose(parse_source("huggingface:a/b"), files)


def test_a_configuration_that_is_nested_without_end() -> None:
    with pytest.raises(InvalidError, match=r"config\.json: nested too deeply"):
        check_code(parse_source("huggingface:a/b"), {"config.json": "[" * 200_000})


@pytest.mark.parametrize("name", [INCOMING, JOURNAL, MANIFEST])
def test_no_model_is_called_as_what_lies_beside_it(name: str) -> None:
    with pytest.raises(InvalidError, match="id: found"):
        parse_source(f"huggingface:owner/{name}")


def test_what_is_left_out_is_said() -> None:
    choice = chosen("m.safetensors", "m.bin", "x.py", "x.onnx", "README.md", exclude=("*.md",))
    notes = " ".join(choice.notes())
    assert "m.bin" in notes
    assert "x.py" in notes
    assert "x.onnx" in notes
    assert "README" not in notes


@pytest.mark.parametrize("name", ["m.bin", "m.PT", "m.pth", "m.ckpt", "m.pkl", "m.h5", "m.msgpack", "m.npz"])
def test_pickles_alone_are_refused(name: str) -> None:
    with pytest.raises(InvalidError, match="pickled") as raised:
        chosen("config.json", name)
    assert name in str(raised.value.hint)
    assert paths(chosen("config.json", name, allow=(name,))) == ["config.json", name]


def test_no_weights_at_all() -> None:
    with pytest.raises(InvalidError, match="no weights among its files"):
        chosen("config.json", "m.safetensors", exclude=("*.safetensors",))


def test_include_narrows_and_does_not_allow() -> None:
    assert paths(chosen("m.safetensors", "m.bin", "a.json", include=("m.*",))) == ["m.safetensors"]
    assert paths(chosen("d/m.safetensors", "e/m.safetensors", include=("d/",))) == ["d/m.safetensors"]


@pytest.mark.parametrize(("more", "said"), [({"include": ("*.x",)}, "include"), ({"allow": ("m.pt",)}, "allow")])
def test_a_name_that_is_not_there_is_a_mistake(more: dict[str, tuple[str, ...]], said: str) -> None:
    with pytest.raises(InvalidError, match=said):
        chosen("m.safetensors", **more)


@pytest.mark.parametrize(
    "path",
    ["", "/a", "../a", "a/..", "a/../b", "./a", "a//b", "a/", "a\\b", "a\nb", "a\x00", "a\u202eb", "\ud800", "x" * 256],
)
def test_names_that_must_not_be_written(path: str) -> None:
    assert name_problem(path)


def test_good_names_and_clashes() -> None:
    assert name_problems(["a/b.json", "ü/模型.json", "...", "a/b"]) == []
    assert "stands twice" in name_problems(["a", "a"])[0]
    assert "a file and a folder" in name_problems(["a", "a/b/c"])[0]
    assert name_problems(["a", "b", "a.partial"]) == ["'a.partial' is where 'a' grows"]
    assert name_problems(["d/a", "d/a.partial/b"]) == ["'d/a.partial' is where 'd/a' grows"]
    assert name_problems(["a", "d/a.partial"]) == []


@pytest.mark.parametrize(
    ("auto_map", "named"),
    [
        ('{"AutoModel": "modeling_x.X"}', "modeling_x.py"),
        ('{"AutoTokenizer": ["tok_x.Slow", null]}', "tok_x.py"),
        ('{"AutoModel": "owner/other--modeling_y.Y"}', "owner/other--modeling_y.py"),
    ],
)
def test_code_that_a_configuration_names(auto_map: str, named: str) -> None:
    texts = {"config.json": f'{{"auto_map": {auto_map}}}'}
    with pytest.raises(InvalidError, match=named):
        check_code(parse_source("huggingface:a/b"), texts)
    check_code(parse_source("huggingface:a/b", allow=(named,)), texts)
    check_code(parse_source("huggingface:a/b", exclude=("*.py",)), texts)


@pytest.mark.parametrize("text", ["", "[]", '{"auto_map": 3}', '{"auto_map": {}}', "{"])
def test_configurations_without_code(text: str) -> None:
    check_code(parse_source("huggingface:a/b"), {"config.json": text})
