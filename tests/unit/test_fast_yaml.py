"""What libyaml writes is what PyYAML writes by itself: kept texts stay the same, byte for byte."""

import json

import pytest
import yaml

from onprem_llm import fast_yaml
from onprem_llm.planning.revisions import canonical_text
from onprem_llm.rendering import compose
from onprem_llm.spec.deployment import parse_deployment

TEXTS = [
    "", " ", " a", "a ", "a\n", "a\n\n", "\na", "a\n  b\nc", "- a", "? x", "a: b", "a #b", "{a}", "[x", "!t", "&a",
    "*b", "|", ">", "%a", "@a", "`x", "'", '"', "\\", "$${x}", "---", "--- a", "...", "~", "null", "true", "on", "n",
    "=", "<<", "1e3", "012", "1:30", "0x1f", ".5", "+1", "1_000", ".inf", "2020-01-01", "\t", "\x00\x7f", "word " * 900,
    "{%- for m in messages %}\n\t{{ m['content'] | trim }}: \"\\n\"\n{%- endfor %}",
]  # fmt: skip
FOREIGN = ["中文，。", "\N{GRINNING FACE}", "a\x85b", "\u2028", "\ufeff", "\xa0"]
LINE = "{%- if message.role == 'user' %}\t{{ '<|im_start|>user ' + message.content }} {%- endif %}"
# Near the width and past it, in each way to quote; an empty key.
LONG = [
    "word " * 1780,
    "word " * 2400,
    "it's " * 1600,
    "it's " * 2400,
    "a " * 6000 + "\t",
    f"{LINE}\n" * 140,
    "\x7f " * 2400,
]
KEYS = [{"k": {"it's " * 20 + "x" * count: "a"}} for count in range(20, 30)]
VALUES = [1, -3, 1.5, 1e20, 1e-7, True, None, [], {}, [[]], [{}]]


def written(text: str, dumper: type) -> str:
    value = {"k": text, "more": [text, {text[:100].replace("\n", "") or "k": text}, VALUES]}
    return yaml.dump(value, Dumper=dumper, sort_keys=False, allow_unicode=True, width=10_000)


@pytest.mark.parametrize("text", TEXTS)
def test_text_in_ascii_is_written_alike(text: str) -> None:
    assert written(text, fast_yaml.Dumper) == written(text, yaml.SafeDumper)


@pytest.mark.parametrize("text", [*TEXTS, *FOREIGN, *LONG])
def test_a_compose_file_is_written_alike(text: str) -> None:
    class Slow(yaml.SafeDumper):
        ignore_aliases = staticmethod(lambda data: True)

    Slow.add_representer(str, compose._text)
    for value in ({"k": text, "more": [text, VALUES]}, {"k": {"deeper": [text]}}, {"labels": {"": text}}, *KEYS):
        assert compose.to_yaml(value) == yaml.dump(
            value, Dumper=Slow, sort_keys=False, allow_unicode=True, width=10_000
        )


@pytest.mark.parametrize("value", ["chat", "中文，。", "\N{GRINNING FACE}", "\u2028", *LONG, {"": "a"}])
def test_the_text_of_the_book_is_the_one_it_always_was(value: object) -> None:
    model = {"api_version": 1, "name": "a", "model": "./a", "engine": {"image": "a:1", "engine_args": {"x": value}}}
    text = json.dumps(model, ensure_ascii=False).replace("\x7f", "\\u007f")
    kept = canonical_text(parse_deployment(text, "model.yaml"), "w")
    value = {"api_version": 1, "name": "a", "model": "./a", "engine": model["engine"], "served_name": "a"}
    body = kept.partition("\n")[2]
    assert yaml.safe_load(body) == value
    assert body == yaml.safe_dump(yaml.safe_load(body), sort_keys=False, allow_unicode=True, width=10_000)
