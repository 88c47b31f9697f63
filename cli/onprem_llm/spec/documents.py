"""YAML documents whose values know the line they stand on."""

from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path

import yaml
from yaml.nodes import MappingNode, Node, SequenceNode

from onprem_llm import fast_yaml
from onprem_llm.errors import InvalidError

Location = tuple[str | int, ...]


@dataclass(frozen=True)
class Document:
    """A mapping read from YAML, and the line of each of its values (from 1)."""

    where: str
    value: dict[str, object]
    lines: dict[Location, int]

    @classmethod
    def parse(cls, text: str, where: str) -> "Document":
        """Read `text`; InvalidError if it is no YAML, no mapping, or names a key twice."""
        loader = fast_yaml.Loader(text)
        try:
            node = loader.get_single_node()
            lines: dict[Location, int] = {}
            if node is not None:
                _walk(node, (), lines, where)
            value = loader.construct_document(node) if node is not None else None
        except yaml.YAMLError as error:
            raise InvalidError(f"{where}: this is not YAML: {_yaml_problem(error)}", hint="mend the line") from None
        finally:
            loader.dispose()
        if not isinstance(value, dict):
            found = "an empty file" if value is None else f"a {type(value).__name__}"
            raise InvalidError(f"{where}: found {found}, expected a mapping (key: value lines)")
        return cls(where, value, lines)


def read_document(path: Path) -> Document:
    """Read a YAML file; InvalidError names the file when it is missing or cannot be read."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InvalidError(
            f"{path}: no such file", hint="check the path; examples/tiny.yaml shows a whole one"
        ) from None
    except IsADirectoryError:
        raise InvalidError(
            f"{path}: this is a folder, expected a model.yaml",
            hint="name the file; a folder of weights stands in it, below `model:`",
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidError(f"{path}: cannot be read as text: {error}") from None
    return Document.parse(text, str(path))


def _walk(node: Node, at: Location, lines: dict[Location, int], where: str) -> None:
    lines[at] = node.start_mark.line + 1
    if isinstance(node, SequenceNode):
        for index, item in enumerate(node.value):
            _walk(item, (*at, index), lines, where)
    elif isinstance(node, MappingNode):
        seen: set[Hashable] = set()
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key.value in seen:
                path = ".".join(str(part) for part in (*at, key.value))
                raise InvalidError(f"{where}: {path} stands twice, again on line {line}", hint="remove one of them")
            if isinstance(key.value, Hashable):
                seen.add(key.value)
            _walk(value, (*at, key.value), lines, where)
            lines[(*at, key.value)] = line


def _yaml_problem(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"{error.problem or 'cannot be read'} on line {mark.line + 1}, column {mark.column + 1}"
    return " ".join(str(error).split())
