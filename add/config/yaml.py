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
from typing import Annotated, Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, SequenceNode

from add.errors import InputError

Loc = tuple[str | int, ...]
"""A place in a document: keys and list indices from the top."""

_MODEL = TypeVar("_MODEL", bound=BaseModel)
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

    def error(self, loc: Loc, message: str) -> SpecError:
        """The error of this file at `loc`."""
        return SpecError(self.file, self.line(loc), message)


def read_yaml(path: str | Path) -> tuple[dict[str, Any], Origin]:
    """One YAML mapping as plain values (lists as tuples), and the line of each. Raises SpecError."""
    origin = Origin(Path(path).as_posix())
    try:
        raw = Path(path).read_bytes()
    except OSError as error:
        raise origin.error((), f"cannot be read: {error.strerror}") from error
    try:
        yaml = YAML(typ="safe", pure=True)
        root = yaml.compose(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise SpecError(origin.file, line, "is not UTF-8 text") from error
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise SpecError(origin.file, line, f"is not YAML: {error.problem}") from error
    except YAMLError as error:
        raise origin.error((), f"is not YAML: {str(error).splitlines()[0]}") from error
    except RecursionError as error:
        raise origin.error((), "is nested too deeply for any setting") from error
    if not isinstance(root, MappingNode):
        raise origin.error((), "holds no mapping of keys to values")
    reader = _Reader(origin.file, yaml.constructor.construct_object)
    values = reader.plain(root, ())
    raise_all(reader.problems)
    return values, Origin(origin.file, reader.lines)


class _Reader:
    """Makes plain values of nodes; collects their lines and all problems."""

    def __init__(self, file: str, scalar: Callable[[Node], Any]) -> None:
        self.file, self.scalar = file, scalar
        self.lines: dict[Loc, int] = {(): 1}
        self.problems: list[SpecError] = []

    def wrong(self, node: Node, message: str) -> None:
        self.problems.append(SpecError(self.file, node.start_mark.line + 1, message))

    def plain(self, node: Node, loc: Loc) -> Any:
        """The value of a node, None where it is wrong."""
        self.lines.setdefault(loc, node.start_mark.line + 1)
        kind = str(node.tag).rpartition(":")[2]
        if node.anchor is not None:
            self.wrong(node, f"{dotted(loc)}: anchors and aliases are not supported; write the value out")
        elif str(node.tag) not in _CORE:
            self.wrong(
                node, f"{dotted(loc)}: a value of type '{kind}' is not supported; put text into quotes"
            )
        elif isinstance(node, MappingNode):
            return self.mapping(node, loc)
        elif isinstance(node, SequenceNode):
            return tuple(self.plain(item, (*loc, index)) for index, item in enumerate(node.value))
        else:
            try:
                value = self.scalar(node)
                return value + 0.0 if isinstance(value, float) else value  # -0.0 is 0.0
            except (ValueError, YAMLError) as error:  # only an explicit tag can contradict its own text
                self.wrong(node, f"{dotted(loc)}: {error}")
        return None

    def mapping(self, node: MappingNode, loc: Loc) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in node.value:
            if str(key.tag) != "tag:yaml.org,2002:str":
                self.wrong(key, f"key {key.value!r} in {dotted(loc)} is not text; put it into quotes")
            elif key.value in found:
                first = self.lines[*loc, key.value]
                self.wrong(key, f"duplicate key '{key.value}' (first on line {first})")
            else:
                self.lines[*loc, key.value] = key.start_mark.line + 1
                found[key.value] = self.plain(value, (*loc, key.value))
        return found


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


def read_model(model: type[_MODEL], path: str | Path) -> tuple[_MODEL, Origin]:
    """One YAML file as a `model`, and its lines. Raises SpecError with every problem of the file."""
    values, origin = read_yaml(path)
    return validated(model, values, origin.error), origin


def read_json(model: type[_MODEL], path: str | Path, remedy: str = "") -> _MODEL:
    """One JSON file as a `model`. Raises SpecError with every problem of the file, each with the remedy."""
    file = Origin(Path(path).as_posix())
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise file.error((), f"cannot be read: {error.strerror}") from error
    return validated(model, content, lambda loc, message: file.error(loc, message + remedy))


def validated(
    model: type[_MODEL],
    values: dict[str, Any] | bytes,
    refused: Callable[[Loc, str], SpecError],
    name: Callable[[Loc], str] = dotted,
) -> _MODEL:
    """Values, or JSON, as a `model`. Raises SpecError with every problem.

    refused: makes the error of a place in the model and a message. name: a place as messages write it.
    """
    try:
        if isinstance(values, bytes):
            return model.model_validate_json(values)
        return model.model_validate(values)
    except ValidationError as error:
        found = error.errors(include_url=False)
    # A list with a wrong entry is also told to be too short by that one.
    wrong = {tuple(detail["loc"][:k]) for detail in found for k in range(len(detail["loc"]))}
    found = [d for d in found if d["type"] != "too_short" or tuple(d["loc"]) not in wrong]
    raise_all(_explained(model, detail, refused, name) for detail in found)
    raise AssertionError("pydantic refused values without a reason")


def _explained(
    model: type[BaseModel],
    detail: Mapping[str, Any],
    refused: Callable[[Loc, str], SpecError],
    name: Callable[[Loc], str],
) -> SpecError:
    kind, value, context = detail["type"], detail["input"], detail.get("ctx", {})
    # Where a union's tag is wrong, that is the tag's fault and not the whole choice's.
    loc: Loc = (*detail["loc"], "kind") if kind.startswith("union_tag") else tuple(detail["loc"])
    written, known = _written(model, loc)
    key = name(written)
    if kind == "extra_forbidden":
        message = f"unknown key '{key}'{nearest(loc[-1], known)}"
    elif kind in ("missing", "union_tag_not_found"):
        message = f"missing key '{key}'"
    elif kind == "value_error":
        message = f"{key}: {context['error']}"
        if names := re.findall(
            r"`(\w+)`", message
        ):  # of a whole section: the line of the first key that it names
            loc = (*loc, names[0])
    elif kind in ("literal_error", "union_tag_invalid"):
        value = context.get("tag", value)
        choices = re.split(", | or ", context.get("expected") or context["expected_tags"])
        near = nearest(value, [choice.strip("'") for choice in choices])
        message = f"{key}: {_shown(value)} is not a choice{near}"
        if isinstance(value, str) and value in choices:  # "2" where 2 is one
            message = f"{key}: {_shown(value)} is text; write {value} without quotes"
    else:
        reason = detail["msg"].replace("Input should", "should").replace("valid tuple", "valid list")
        hint = ""
        if kind in ("float_type", "int_type") and isinstance(value, str):
            hint = " (text: write a number without quotes and in full, such as 1.0e-5)"
        elif kind == "string_type" and isinstance(value, int | float):
            hint = " (put it into quotes)"
        message = f"{key}: {reason}, not {_shown(value)}{hint}"
    return refused(loc, message)


def _shown(value: Any) -> str:
    text = repr(list(value) if isinstance(value, tuple) else value)
    text = {"None": "null", "True": "true", "False": "false"}.get(text, text)
    return text if len(text) <= 80 else text[:77] + "..."


def _written(model: type[BaseModel], loc: Loc) -> tuple[Loc, Iterable[str]]:
    """`loc` without the tags of unions, which are not keys of the file, and the keys beside its last one."""
    written: Loc = ()
    known: Mapping[str, Any] = {}
    declared: Any = model
    for part in loc:
        first, *others = _members(declared)
        if others:  # a union: `part` is the tag of a member, or "kind" where there is none
            tagged = (m for m in (first, *others) if part in get_args(m.model_fields["kind"].annotation))
            if (declared := next(tagged, None)) is not None:
                continue
        written = (*written, part)
        if known := getattr(first, "model_fields", {}):
            declared = known[part].annotation if part in known else None
        else:
            inner = get_args(first)
            declared = inner[get_origin(first) is dict] if inner else None
    return written, known


def _members(declared: Any) -> list[Any]:
    """The types that a declaration allows, without Annotated and None."""
    while get_origin(declared) is Annotated:
        declared = get_args(declared)[0]
    if get_origin(declared) in (typing.Union, types.UnionType):
        return [m for member in get_args(declared) if member is not type(None) for m in _members(member)]
    return [declared]
