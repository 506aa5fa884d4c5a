"""YAML with a line number for every value, and errors that name file, line and key.

Only the plain core of YAML 1.2 is accepted: mappings with text keys, lists, text, numbers, booleans, null. Anchors,
merge keys, custom tags and dates are refused, since readers could misread them.
"""

from __future__ import annotations

import difflib
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, SequenceNode

from add.errors import InputError

Loc = tuple[str | int, ...]
"""A place in a document: keys and list indices from the top."""

_CORE = {f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "map", "seq")}


class SpecError(InputError):
    """A setting is wrong. `file`, `line` (from 1) and `message` are the first of its `problems`."""

    def __init__(self, file: str, line: int, message: str, also: tuple[SpecError, ...] = ()) -> None:
        ValueError.__init__(self, file, line, message, also)  # as it is pickled
        self.file, self.line, self.message, self.also = file, line, message, also
        self.problems = (SpecError(file, line, message) if also else self, *also)

    def __str__(self) -> str:
        return "\n".join(f"{p.file}:{p.line}: {p.message}" for p in (self, *self.also))


def raise_all(problems: Iterable[SpecError]) -> None:
    """Raises one SpecError that holds all `problems`, each once; returns where there are none."""
    flat = {(p.file, p.line, p.message): p for error in problems for p in error.problems}
    if flat:
        first, *rest = flat.values()
        raise SpecError(first.file, first.line, first.message, tuple(rest))


@dataclass(frozen=True)
class Origin:
    """The file and lines of a document. They are no part of its value, so any two origins are equal."""

    file: str = field(default="<not from a file>", compare=False)
    lines: Mapping[Loc, int] = field(default_factory=dict, compare=False, repr=False)

    def line(self, loc: Loc) -> int:
        """The line of `loc`, or of its nearest ancestor in the file."""
        found: Loc = ()
        for part in loc:  # pydantic adds the tag of a union to its paths: not a key of the file
            found = (*found, part) if (*found, part) in self.lines else found
        return self.lines.get(found, 1)


def read_yaml(path: str | Path) -> tuple[dict[str, Any], Origin]:
    """One YAML mapping as plain values (lists as tuples), and the line of each. Raises SpecError."""
    file = Path(path).as_posix()
    try:
        raw = Path(path).read_bytes()
    except OSError as error:
        raise SpecError(file, 1, f"cannot be read: {error.strerror}") from error
    try:
        yaml = YAML(typ="safe", pure=True)
        root = yaml.compose(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise SpecError(file, raw[: error.start].count(b"\n") + 1, "is not UTF-8 text") from error
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise SpecError(file, mark.line + 1 if mark else 1, f"is not YAML: {error.problem}") from error
    except YAMLError as error:
        raise SpecError(file, 1, f"is not YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(root, MappingNode):
        raise SpecError(file, 1, "holds no mapping of keys to values")
    lines: dict[Loc, int] = {(): 1}
    problems: list[SpecError] = []
    data = _plain(root, (), file, lines, problems, yaml.constructor.construct_object)
    raise_all(problems)
    return data, Origin(file, lines)


def _plain(
    node: Node,
    loc: Loc,
    file: str,
    lines: dict[Loc, int],
    problems: list[SpecError],
    scalar: Callable[[Node], Any],
) -> Any:
    def wrong(at: Node, message: str) -> None:
        problems.append(SpecError(file, at.start_mark.line + 1, message))

    if node.anchor is not None:
        wrong(node, f"{dotted(loc)}: anchors and aliases are not supported; write the value out")
        return None
    if str(node.tag) not in _CORE:
        kind = str(node.tag).rpartition(":")[2]
        wrong(node, f"{dotted(loc)}: a value of type '{kind}' is not supported; put text into quotes")
        return None
    if isinstance(node, MappingNode):
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if str(key_node.tag) != "tag:yaml.org,2002:str":
                wrong(key_node, f"key {key_node.value!r} in {dotted(loc)} is not text; put it into quotes")
                continue
            key, line = key_node.value, key_node.start_mark.line + 1
            if key in mapping:
                wrong(key_node, f"duplicate key '{key}' (first on line {lines[*loc, key]})")
                continue
            lines[*loc, key] = line
            mapping[key] = _plain(value_node, (*loc, key), file, lines, problems, scalar)
        return mapping
    if isinstance(node, SequenceNode):
        for index, item in enumerate(node.value):
            lines[*loc, index] = item.start_mark.line + 1
        items = enumerate(node.value)
        return tuple(_plain(item, (*loc, index), file, lines, problems, scalar) for index, item in items)
    try:
        value = scalar(node)
    except (ValueError, YAMLError) as error:  # only an explicit tag can contradict its own text
        wrong(node, f"{dotted(loc)}: {error}")
        return None
    return value + 0.0 if isinstance(value, float) else value  # -0.0 is 0.0


def dotted(loc: Loc) -> str:
    """A place as people write it: `rows`, 0, `label` is `rows[0].label`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc)
    return text.removeprefix(".") or "the document"


def nearest(word: object, valid: Iterable[str]) -> str:
    """The end of an error message: the valid word closest to `word`, or all valid words where none is close."""
    words = sorted(valid)
    close = difflib.get_close_matches(str(word), words, n=1, cutoff=0.5)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; known: {', '.join(words)}" if words else "; none is known here"


def explained(
    error: ValidationError,
    model: type[BaseModel],
    where: Callable[[Loc], tuple[str, int]],
    prefix: str = "",
) -> list[SpecError]:
    """pydantic's errors about one `model` as SpecErrors.

    `where` tells file and line of a place in the model; `prefix` comes before keys in messages.
    """
    problems = []
    for detail in error.errors(include_url=False):
        loc: Loc = tuple(detail["loc"])
        if detail["type"].startswith("union_tag"):  # the tag is wrong, not the whole choice that it makes
            loc = (*loc, "kind")
        file, line = where(loc)
        written = _as_written(model, loc)
        name = prefix + dotted(written) if loc else prefix.rstrip(".") or dotted(loc)
        message = _message(name, detail, _annotation(model, loc[:-1]), _annotation(model, loc))
        problems.append(SpecError(file, line, message))
    return problems


def _message(name: str, detail: Mapping[str, Any], parent: Any, annotation: Any) -> str:
    kind, value = detail["type"], detail["input"]
    if kind == "extra_forbidden":
        known = parent.model_fields if _is_model(parent) else ()
        return f"unknown key '{name}'{nearest(detail['loc'][-1], known)}"
    if kind == "missing":
        return f"missing key '{name}'"
    if kind == "value_error":
        return f"{name}: {detail['ctx']['error']}"
    if kind == "literal_error" and get_origin(annotation) is Literal:
        return f"{name}: {_shown(value)} is not a choice{nearest(value, map(str, get_args(annotation)))}"
    if kind == "union_tag_not_found":
        return f"missing key '{name}'"
    if kind == "union_tag_invalid":
        tags = re.findall(r"'(\w+)'", detail["ctx"]["expected_tags"])
        return f"{name}: {detail['ctx']['tag']!r} is not a choice{nearest(detail['ctx']['tag'], tags)}"
    message = detail["msg"].replace("Input should", "should").replace("valid tuple", "valid list")
    hint = ""
    if kind in ("float_type", "int_type") and isinstance(value, str):
        hint = " (text: write a number without quotes and in full, such as 1.0e-5)"
    elif kind == "string_type" and isinstance(value, int | float):
        hint = " (put it into quotes)"
    return f"{name}: {message}, not {_shown(value)}{hint}"


def _shown(value: Any) -> str:
    text = {None: "null", True: "true", False: "false"}.get(value) if value is None or value is True else None
    text = text or ("false" if value is False else repr(list(value) if isinstance(value, tuple) else value))
    return text if len(text) <= 80 else text[:77] + "..."


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _annotation(annotation: Any, loc: Loc) -> Any:
    """The declared type at `loc` below `annotation`; None where the declaration has no such place."""
    annotation = _bare(annotation)
    if not loc:
        return annotation
    if _is_model(annotation):
        declared = annotation.model_fields.get(loc[0])
        return _annotation(declared.annotation, loc[1:]) if declared else None
    if get_origin(annotation) is dict:
        return _annotation(get_args(annotation)[1], loc[1:])
    if get_origin(annotation) is tuple:
        return _annotation(get_args(annotation)[0], loc[1:])
    if get_origin(annotation) in (typing.Union, types.UnionType):  # a tagged union: its tag is part of `loc`
        for member in map(_bare, get_args(annotation)):
            if _is_model(member) and loc[0] in get_args(member.model_fields["kind"].annotation):
                return _annotation(member, loc[1:])
    return None


def _as_written(model: type[BaseModel], loc: Loc) -> Loc:
    """`loc` without the tags of unions, which are not keys of the file."""
    return tuple(
        part
        for i, part in enumerate(loc)
        if get_origin(_annotation(model, loc[:i])) not in (typing.Union, types.UnionType) or part == "kind"
    )


def _bare(annotation: Any) -> Any:
    """`annotation` without Annotated and without "or None"."""
    if get_origin(annotation) is Annotated:
        return _bare(get_args(annotation)[0])
    if get_origin(annotation) in (typing.Union, types.UnionType):
        members = [member for member in get_args(annotation) if member is not type(None)]
        return _bare(members[0]) if len(members) == 1 else annotation
    return annotation
