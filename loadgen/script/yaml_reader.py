"""Reads YAML as Artillery's reader (js-yaml 3) does: text in, values with their places out. Pure.

Its scalar rules are neither YAML 1.1's nor 1.2's: `yes`, `no`, `on`, `off` are texts, `1e3` is 1000, `010` is 8, `0o17` and
`08` are texts, `1:30` is 90, a date is an ISO text. A key given twice is an error. JSON is read by the same rules.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.composer import Composer, ComposerError
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from loadgen.language.values import integer, whole
from loadgen.language.values import text as text_of
from loadgen.script.model import Place, ScriptErrors, ScriptProblem

_NULLS = {"", "~", "null", "Null", "NULL"}
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INTEGERS = (
    (re.compile(r"0b([01_]+)"), 2),
    (re.compile(r"0x([0-9a-fA-F_]+)"), 16),
    (re.compile(r"0([0-7_]+)"), 8),
    (re.compile(r"(0|[1-9][0-9_]*)"), 10),
)
_SEXAGESIMAL = re.compile(r"[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?")
_FLOAT = re.compile(r"[-+]?(?:0|[1-9][0-9_]*)(?:\.[0-9_]*)?(?:[eE][-+]?[0-9]+)?|\.[0-9_]+(?:[eE][-+]?[0-9]+)?")
_INFINITE = re.compile(r"([-+]?)\.(?:inf|Inf|INF)")
_TIMESTAMP = re.compile(
    r"(\d{4})-(\d\d?)-(\d\d?)(?:(?:[Tt]|[ \t]+)(\d\d?):(\d\d):(\d\d)(?:\.(\d*))?"
    r"(?:[ \t]*(Z|([-+])(\d\d?)(?::(\d\d))?))?)?"
)
_STRING_OR_TAB = re.compile(r'"(?:\\.|[^"\\])*"|\t', re.DOTALL)
_SURROGATES = re.compile("[\ud800-\udfff]")
_YAML_TAG = "tag:yaml.org,2002:"
_DEEPEST = 100
_MOST_VALUES = 100_000
"""Most values in a script. Ten lines of aliases of aliases can stand for more values than memory holds."""


@dataclass(frozen=True, slots=True)
class YamlDocument:
    """The value of one file, and the place of each part by its path (the empty path is the file itself)."""

    value: Any
    places: Mapping[str, Place]


def read_yaml(file: str, text: str) -> YamlDocument:
    """Read a YAML or JSON text, chosen by the file's extension. Raises ScriptErrors, which say what is wrong and where."""
    if file.lower().endswith(".json"):
        text = _STRING_OR_TAB.sub(lambda m: " " if m.group() == "\t" else m.group(), text)
    reader = _Reader(file, text)
    yaml = YAML(typ="safe", pure=True)
    yaml.Composer = _Composer
    try:
        node = yaml.compose(text)
        value = reader.value(node, "", frozenset()) if node is not None else None
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
        said = _in_words(error, column)
        raise ScriptErrors((ScriptProblem(Place(file, line, column, ""), said),)) from None
    except YAMLError as error:
        raise ScriptErrors((ScriptProblem(Place(file, 0, 0, ""), str(error).splitlines()[0]),)) from None
    except (ValueError, OverflowError):
        raise ScriptErrors((ScriptProblem(Place(file, 0, 0, ""), "an escape stands for no character"),)) from None
    if reader.problems:
        raise ScriptErrors(tuple(reader.problems))
    return YamlDocument(value, reader.places)


def _in_words(error: MarkedYAMLError, column: int) -> str:
    """Say what is wrong in the words of somebody who writes scripts, where the parser speaks of its own states."""
    said = str(error.problem or error.context or "not YAML")
    if said.startswith("expected <block end>"):
        around = error.context_mark
        kind = "list" if "collection" in str(error.context) else "object"
        block = (
            f"; the {kind} above it begins in line {around.line + 1} at column {around.column + 1}" if around else ""
        )
        return f"the indentation does not fit: this line begins at column {column}{block}"
    if said.startswith("found character '\\t'"):
        return "a tab: YAML is indented with spaces"
    if said.startswith("mapping values are not allowed"):
        return "a `:` in a place where YAML takes none: quote the text before it, or check the indentation"
    if said.startswith("could not find expected ':'"):
        return "a key without a `:` behind it, or a line whose indentation does not fit"
    return f"{error.context}, {said}" if said.startswith("but ") else said


def child_path(path: str, key: str | int) -> str:
    """Return the path of a part inside another, such as `scenarios[0].flow`."""
    if isinstance(key, int):
        return f"{path}[{key}]"
    return f"{path}.{key}" if path else key


class _Composer(Composer):
    """A YAML composer that refuses a nesting deeper than any script needs, before the stack overflows."""

    _depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Compose the node that begins at the next event."""
        self._depth += 1
        if self._depth > _DEEPEST:
            raise ComposerError(problem="nested too deeply", problem_mark=self.parser.peek_event().start_mark)
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1


class _Reader:
    """Builds values from YAML nodes, and notes their places and problems."""

    def __init__(self, file: str, text: str) -> None:
        self.places: dict[str, Place] = {"": Place(file, 1, 1, "")}
        self.problems: list[ScriptProblem] = []
        self._file = file
        self._text = text
        self._made = 0

    def value(self, node: Node, path: str, above: frozenset[int]) -> Any:
        """Return the value of a node. `above` holds the nodes around it, none of which an alias may name."""
        if id(node) in above:
            self._refuse(node, path, "an alias of what it stands in")
            return None
        self._made += 1
        if self._made > _MOST_VALUES or len(above) > _DEEPEST:
            said = "aliases make the script too large" if self._made > _MOST_VALUES else "nested too deeply"
            raise ComposerError(problem=said, problem_mark=node.start_mark)
        if isinstance(node, ScalarNode):
            return self._scalar(node, path)
        above |= {id(node)}
        if self._text.startswith("!", node.start_mark.index) and not str(node.tag).endswith((":seq", ":map")):
            self._refuse(node, path, f"the tag {str(node.tag).removeprefix(_YAML_TAG)} is not supported")
        if isinstance(node, SequenceNode):
            out = []
            for i, item in enumerate(node.value):
                inner = child_path(path, i)
                self._note(item, inner)
                out.append(self.value(item, inner, above))
            return out
        return self._mapping(node, path, above) if isinstance(node, MappingNode) else None

    def _mapping(self, node: MappingNode, path: str, above: frozenset[int]) -> dict[str, Any]:
        out: dict[str, Any] = {}
        merged: list[dict[str, Any]] = []
        for key_node, value_node in node.value:
            if isinstance(key_node, ScalarNode) and key_node.value == "<<" and not key_node.style:
                merged += self._merged(value_node, path, above)
                continue
            key = text_of(self.value(key_node, path, above))
            inner = child_path(path, key)
            if key in out:
                self._refuse(key_node, inner, "duplicated key")
            self._note(key_node, inner)
            out[key] = self.value(value_node, inner, above)
        for more in merged:
            out.update({k: v for k, v in more.items() if k not in out})
        return out

    def _merged(self, node: Node, path: str, above: frozenset[int]) -> list[dict[str, Any]]:
        parts = node.value if isinstance(node, SequenceNode) else [node]
        values = [self.value(part, path, above) for part in parts]
        if not all(isinstance(v, dict) for v in values):
            self._refuse(node, path, "`<<` merges objects only")
        return [v for v in values if isinstance(v, dict)]

    def _note(self, node: Node, path: str) -> None:
        self.places[path] = Place(self._file, node.start_mark.line + 1, node.start_mark.column + 1, path)

    def _refuse(self, node: Node, path: str, message: str) -> None:
        place = Place(self._file, node.start_mark.line + 1, node.start_mark.column + 1, path)
        self.problems.append(ScriptProblem(place, message))

    def _scalar(self, node: ScalarNode, path: str) -> Any:
        tag = str(node.tag).removeprefix(_YAML_TAG)
        if self._text.startswith("!", node.start_mark.index):
            if tag not in {"str", "!"}:
                self._refuse(node, path, f"the tag {tag} is not supported")
        elif node.style is None:
            return plain_scalar(node.value)
        value = node.value
        # JSON writes a character beyond the basic plane as two escapes.
        if _SURROGATES.search(value):
            value = value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        return value


def plain_scalar(text: str) -> Any:
    """Return the value of an unquoted scalar."""
    if text in _NULLS:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if text[0] in "+-.0123456789":
        return _number_or_text(text)
    return text


def _number_or_text(text: str) -> Any:
    sign, digits = (-1, text[1:]) if text[0] == "-" else (1, text.removeprefix("+"))
    if not digits.endswith("_"):
        for pattern, base in _INTEGERS:
            match = pattern.fullmatch(digits)
            if match and match[1].strip("_"):
                return sign * integer(match[1].replace("_", ""), base)
    if _SEXAGESIMAL.fullmatch(digits):
        total = 0.0
        for part in digits.replace("_", "").split(":"):
            total = total * 60 + float(part)
        return whole(sign * total)
    if _FLOAT.fullmatch(text) and not text.endswith("_"):
        return whole(float(text.replace("_", "")))
    infinite = _INFINITE.fullmatch(text)
    if infinite:
        return float(f"{infinite[1]}inf")
    if text in {".nan", ".NaN", ".NAN"}:
        return float("nan")
    return _date(text) or text


def _date(text: str) -> str | None:
    """Return a YAML timestamp as the ISO text that JavaScript makes of it; None for anything else."""
    match = _TIMESTAMP.fullmatch(text)
    if not match:
        return None
    year, month, day, hour, minute, second, fraction, zone, sign, zone_hour, zone_minute = match.groups()
    if hour is None and (len(month), len(day)) != (2, 2):
        return None
    try:
        at = datetime(int(year), int(month), int(day), int(hour or 0), int(minute or 0), int(second or 0), tzinfo=UTC)
    except ValueError:
        return None
    at += timedelta(milliseconds=int((fraction or "0").ljust(3, "0")[:3]))
    if zone and sign:
        shift = timedelta(hours=int(zone_hour), minutes=int(zone_minute or 0))
        try:
            at = at - shift if sign == "+" else at + shift
        except OverflowError:
            return None
    return at.strftime("%Y-%m-%dT%H:%M:%S.") + f"{at.microsecond // 1000:03d}Z"
