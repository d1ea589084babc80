"""Merges the sources of a script into one document, as Artillery does; every part still knows its place in a file. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from loadgen.script.model import Place, ScriptProblem
from loadgen.script.yaml_reader import YamlDocument, child_path


class _Absent:
    def __repr__(self) -> str:
        return "absent"

    def __bool__(self) -> bool:
        return False

    def __reduce__(self) -> str:
        """Pickle by name, so that another process has only one such object, too."""
        return "ABSENT"


ABSENT: Any = _Absent()
"""Stands for the value of a key that is absent."""


def merged(low: Any, high: Any, *, replace_lists: bool = False) -> Any:
    """Merge `high` over `low`: objects key by key, lists index by index (or whole), anything else is replaced."""
    if isinstance(low, Mapping) and isinstance(high, Mapping):
        out = dict(low)
        for key, value in high.items():
            out[key] = merged(out[key], value, replace_lists=replace_lists) if key in out else value
        return out
    if isinstance(low, list) and isinstance(high, list) and not replace_lists:
        shared = [merged(a, b) for a, b in zip(low, high, strict=False)]
        return shared + low[len(shared) :] + high[len(shared) :]
    return high


# Most look-ups of similar keys in one script: each takes a millisecond.
_HINTS_MAX = 100


class Notes:
    """Collects the problems and warnings found in a script, and knows the place of each part of it."""

    def __init__(self, places: Mapping[str, Place]) -> None:
        self.problems: list[ScriptProblem] = []
        self.warnings: list[ScriptProblem] = []
        self._places = places
        self._hints_left = _HINTS_MAX
        self.skipped = False
        """Whether something that cannot be run was left out (--skip-unsupported)."""
        self.undefined: dict[str, str] = {}
        """Why a text of `config` was filled in as undefined, by its path."""

    def hint(self, key: str, known: Iterable[str]) -> str | None:
        """Return the known key that `key` was probably meant to be; only the first `_HINTS_MAX` keys are looked up."""
        self._hints_left -= 1
        return nearest(key, known) if self._hints_left >= 0 else None

    def place(self, path: str) -> Place:
        """Return the place of the part at `path`, or of the nearest part around it that has one."""
        at = path
        while at and at not in self._places:
            at = at[: max(at.rfind("."), at.rfind("["), 0)]
        found = self._places.get(at) or Place("script", 0, 0, "")
        return Place(found.file, found.line, found.column, path)


class ScriptNode:
    """A value of the document with its path. It reads keys, and notes what is wrong with them."""

    __slots__ = ("notes", "path", "value")

    def __init__(self, value: Any, path: str, notes: Notes) -> None:
        self.value = value
        self.path = path
        self.notes = notes

    @property
    def place(self) -> Place:
        """The place of this part in the user's files."""
        return self.notes.place(self.path)

    def __contains__(self, key: str) -> bool:
        return isinstance(self.value, Mapping) and key in self.value

    def __getitem__(self, key: str) -> ScriptNode:
        """Return the part under `key`; its value is ABSENT if there is none."""
        value = self.value.get(key, ABSENT) if isinstance(self.value, Mapping) else ABSENT
        return ScriptNode(value, child_path(self.path, key), self.notes)

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value under `key`."""
        value = self[key].value
        return default if value is ABSENT else value

    def items(self) -> Iterator[tuple[str, ScriptNode]]:
        """Iterate over the keys of an object with their parts; empty for anything else."""
        if isinstance(self.value, Mapping):
            for key in self.value:
                yield key, self[key]

    def parts(self) -> Iterator[ScriptNode]:
        """Return the elements of a list as parts; empty for anything else."""
        if isinstance(self.value, list):
            for i, value in enumerate(self.value):
                yield ScriptNode(value, child_path(self.path, i), self.notes)

    def refuse(self, message: str, nearest: str | None = None) -> None:
        """Note a problem with this part: the script cannot be run."""
        self.notes.problems.append(ScriptProblem(self.place, message, nearest))

    def warn(self, message: str, nearest: str | None = None) -> None:
        """Note a warning about this part: it does not do what it seems to do."""
        self.notes.warnings.append(ScriptProblem(self.place, message, nearest))

    def warn_unknown(self, known: Iterable[str], *, only_similar: bool = False) -> None:
        """Warn of keys that have no effect; with `only_similar`, only of those that look like a misspelt known key."""
        names = list(known)
        for key, part in self.items():
            if key not in names:
                like = self.notes.hint(key, names)
                if like or not only_similar:
                    part.warn(f"`{key}` has no effect", like)

    def warn_misplaced(self, homes: Mapping[str, str]) -> None:
        """Warn of keys that have no effect here; `homes` names the section that each belongs to."""
        for key, part in self.items():
            if key in homes:
                part.warn(f"has no effect here: it belongs under `{homes[key]}`")

    def expect(self, kind: type | tuple[type, ...], said: str, *, strict: bool = True) -> bool:
        """Whether this part is absent or of that kind. If not, it is refused, or, unless `strict`, warned of."""
        if self.value is ABSENT or (
            isinstance(self.value, kind) and (kind is bool or not _stray_bool(self.value, kind))
        ):
            return True
        hint = "; quote a text that begins with `{{`" if _unquoted_template(self.value) else ""
        (self.refuse if strict else self.warn)(f"must be {said}{hint}")
        return False


def _stray_bool(value: Any, kind: type | tuple[type, ...]) -> bool:
    """Whether `value` is a boolean where `kind` asks for a number: bool is a subclass of int in Python, not in a script."""
    return isinstance(value, bool) and bool not in (kind if isinstance(kind, tuple) else (kind,))


def _unquoted_template(value: Any) -> bool:
    return isinstance(value, Mapping) and any(str(key) == "[object Object]" for key in value)


def nearest(key: str, known: Iterable[str]) -> str | None:
    """Return the known key that is most similar to `key`, or None."""
    names = {name.lower(): name for name in known}
    found = get_close_matches(key.lower(), names, 1, 0.6)
    return names[found[0]] if found else None


def document(sources: Iterable[YamlDocument]) -> tuple[Any, dict[str, Place]]:
    """Merge all sources, later ones over earlier ones. Returns the value and the places of its parts."""
    value: Any = {}
    places: dict[str, Place] = {}
    for source in sources:
        value = merged(value, source.value)
        places.update(source.places if not places else {k: v for k, v in source.places.items() if k})
    return value, places
