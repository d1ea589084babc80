"""Reads the files of publications, in YAML or JSON, and checks them.

A file that does not keep to the format is refused, with one line for each mistake, which names the file, the line and the field.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.resources import files
from math import inf
from sys import float_info
from typing import Any

from loadgen.lab.publication import (
    Check,
    Condition,
    PerCore,
    Publication,
    PublicationExperiment,
    PublishedClaim,
    PublishedFigure,
    Quantity,
    Source,
)
from loadgen.script.model import Place, ScriptErrors, ScriptProblem
from loadgen.script.yaml_reader import child_path, read_yaml
from reports.blocks import decimal

GROUP = "publications"
"""The name that stands for all publications of the tool in --only."""

_FOLDER = files("loadgen.lab") / "publications"
# Each publication has a page of its own, called after it.
_TAKEN = "index"
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


def known() -> dict[str, Publication]:
    """The tool's own publications by name, in alphabetical order."""
    found = sorted((each for each in _FOLDER.iterdir() if each.name.endswith(".yml")), key=lambda each: each.name)
    read = [parse(each.name, each.read_text("utf-8")) for each in found]
    return {publication.name: publication for publication in read}


def is_file(name: str) -> bool:
    """Whether a name given to --only is the path of a user's own file."""
    return name.lower().endswith((".yml", ".yaml", ".json")) or os.sep in name


def parse(file: str, text: str) -> Publication:
    """The publication in the text of a file. Raises ScriptErrors, with one problem for each fault."""
    document = read_yaml(file, text)
    reader = _Reader(file, document.places)
    publication = reader.publication(document.value)
    if reader.problems or publication is None:
        raise ScriptErrors(tuple(reader.problems))
    return publication


# Checks of single values. Each returns the value as it is kept, or raises ValueError with what it must be.

_Check = Callable[[Any], Any]


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("must be a text")
    return " ".join(value.split())


def _name(value: Any) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise ValueError("must be a name of small letters and digits, with hyphens between them")
    return value


def _address(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"https?://\S+", value):
        raise ValueError("must be an address that begins with http:// or https://")
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")  # noqa: TRY004 - one kind of error for all checks
    return value


def _one_of(*names: str) -> _Check:
    def check(value: Any) -> str:
        if value not in names:
            raise ValueError(f"must be one of {', '.join(names)}")
        return str(value)

    return check


def _whole(low: int, high: int) -> _Check:
    def check(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return value

    return check


def _count(low: int, high: int) -> _Check:
    """A check for a whole number from `low` to `high`, or for one that depends on the cores: {per_core: 2, plus: 1}."""

    def check(value: Any) -> int | PerCore:
        if isinstance(value, dict) and value and not value.keys() - {"per_core", "plus"}:
            return PerCore(_number(0, 1000)(value.get("per_core", 0)), _whole(-high, high)(value.get("plus", 0)))
        if isinstance(value, dict):
            raise ValueError("must be a number, or per_core and plus")  # noqa: TRY004 - as above
        return int(_whole(low, high)(value))

    return check


def _number(low: float, high: float) -> Callable[[Any], float]:
    def check(value: Any) -> float:
        if not _is_number(value) or not low <= value <= high:
            raise ValueError(f"must be a number from {decimal(low)} to {decimal(high)}")
        return float(value)

    return check


def _is_number(value: Any) -> bool:
    """Whether this is a number that a double can hold, and is finite."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= float_info.max


def _range(value: Any) -> tuple[float, float]:
    """Two ends; null stands for no limit on that side."""
    said = "must be two numbers, the lower one first, such as [0.8, 1.2]; null on one side means no limit there"
    if not isinstance(value, list) or len(value) != 2 or value == [None, None]:
        raise ValueError(said)
    for end in value:
        if end is not None and not _is_number(end):
            raise ValueError(said)
    low, high = (-inf if value[0] is None else float(value[0])), (inf if value[1] is None else float(value[1]))
    if low > high:
        raise ValueError(said)
    return low, high


@dataclass(frozen=True, slots=True)
class _Field:
    """A field of the format: how its value is checked, its default, and whether the file must have it."""

    check: _Check
    default: Any = None
    required: bool = False


_DRIVERS = ("psycopg2", "psycopg")
_WORK = {
    "statement": _Field(_text, ""),
    "hold_ms": _Field(_number(0, 600_000), 0.0),
}
_POOL = {
    "driver": _Field(_one_of(*_DRIVERS), "psycopg2"),
    "size": _Field(_count(1, 10_000), 5),
    "overflow": _Field(_count(0, 10_000), 0),
    "timeout_s": _Field(_number(0.1, 600), 30.0),
    **_WORK,
}
SETTINGS: Mapping[str, Mapping[str, _Field]] = {
    "borrowers": {
        "pool": _Field(_one_of("queue", "fair", "null", "psycopg_pool"), required=True),
        "mode": _Field(_one_of("threads", "greenlets"), "threads"),
        "borrowers": _Field(_count(1, 10_000), required=True),
        "idle": _Field(_count(0, 10_000)),
        "connect_delay_ms": _Field(_number(0, 60_000), 0.0),
        "think_ms": _Field(_number(0, 60_000), 0.0),
        "nested": _Field(_whole(1, 10), 1),
        "seconds": _Field(_number(0.1, 600), 0.0),
        "loans": _Field(_whole(1, 1_000_000), 0),
        **_POOL,
    },
    "requests": {
        "pool": _Field(_one_of("queue", "fair"), required=True),
        "threads": _Field(_count(1, 1000), required=True),
        "requests": _Field(_count(1, 100_000), required=True),
        "give_back": _Field(_one_of("at once", "later"), "at once"),
        **_POOL,
    },
    "clients": {
        "driver": _Field(_one_of(*_DRIVERS, "asyncpg", "pgbench"), "psycopg2"),
        "clients": _Field(_count(1, 10_000), required=True),
        "connect": _Field(_one_of("once", "each time"), "once"),
        "statement": _Field(_text, required=True),
        "seconds": _Field(_number(0.1, 600), required=True),
    },
}
"""By kind of experiment: its settings by name. A default of None means that other settings determine the value."""

_EITHER = {
    "borrowers": (("statement", "hold_ms"), ("seconds", "loans")),
    "requests": (("statement", "hold_ms"),),
    "clients": (),
}
"""Pairs of settings of which each experiment has exactly one."""


class _Reader:
    """Checks the parts of one file, and collects its mistakes in `problems`. `places`: where each part is, by its path."""

    def __init__(self, file: str, places: Mapping[str, Place]) -> None:
        self._file = file
        self._places = places
        self.problems: list[ScriptProblem] = []
        # Names that the file gives its experiments, whether or not those are right; None where it has none.
        self._named: list[str] | None = None

    def fault(self, path: str, message: str, nearest: str | None = None) -> None:
        """Add a mistake of the part at `path`, such as "claims[0].id"; `nearest` is a name that may have been meant."""
        inside = path
        while inside not in self._places and inside:
            inside = re.sub(r"(^|\.)[^.\[]*$|\[\d+\]$", "", inside)
        place = self._places.get(inside, Place(self._file, 1, 1, ""))
        self.problems.append(ScriptProblem(Place(place.file, place.line, place.column, path), message, nearest))

    def publication(self, value: Any) -> Publication | None:
        """The publication in the value of the whole file; None if it has mistakes."""
        fields = {
            "name": _Field(_name, "", required=True),
            "title": _Field(_text, "", required=True),
            "scale": _Field(_text, "", required=True),
            "rounds": _Field(_whole(1, 100), 3),
        }
        parts = ("source", "published", "experiments", "claims")
        found = self._fields("", value, fields, (*parts, "setup"))
        if found is None:
            return None
        if found["name"] == _TAKEN:
            self.fault("name", f"{_TAKEN} is the name of the page of all results")
        for part in parts:
            if part not in value:
                self.fault(part, "is missing")
        source = self._source(value.get("source")) if "source" in value else None
        experiments = self._experiments(value["experiments"]) if "experiments" in value else {}
        publication = Publication(
            **found,
            source=source or Source("", "", 0, ""),
            published=tuple(self._published(value.get("published"))) if "published" in value else (),
            experiments=tuple(experiments.values()),
            claims=tuple(self._claims(value["claims"], experiments)) if "claims" in value else (),
            setup=tuple(self._texts("setup", value["setup"])) if "setup" in value else (),
        )
        return None if self.problems else publication

    def _fields(
        self, path: str, value: Any, fields: Mapping[str, _Field], others: Sequence[str] = (), *, partial: bool = False
    ) -> dict[str, Any] | None:
        """The fields of a mapping, checked, with their defaults (without, if `partial`). None if there is no mapping."""
        if not isinstance(value, dict):
            self.fault(path, f"must have the fields {', '.join((*fields, *others))}")
            return None
        for key in value:
            if key not in fields and key not in others:
                nearest = get_close_matches(str(key), [*fields, *others], 1)
                self.fault(child_path(path, str(key)), "is no field of it", nearest[0] if nearest else None)
        found: dict[str, Any] = {}
        for name, each in fields.items():
            where = child_path(path, name)
            if name in value:
                try:
                    found[name] = each.check(value[name])
                except ValueError as error:
                    self.fault(where, str(error))
                    found[name] = each.default
            elif not partial:
                if each.required:
                    self.fault(where, "is missing")
                found[name] = each.default
        return found

    def _items(self, path: str, value: Any) -> list[tuple[str, Any]]:
        """The items of a list that is not empty, each with its path."""
        if not isinstance(value, list) or not value:
            self.fault(path, "must be a list of one item at least")
            return []
        return [(child_path(path, number), item) for number, item in enumerate(value)]

    def _texts(self, path: str, value: Any) -> list[str]:
        found = []
        for where, item in self._items(path, value):
            try:
                found.append(_text(item))
            except ValueError as error:
                self.fault(where, str(error))
        return found

    def _source(self, value: Any) -> Source | None:
        fields = {
            "author": _Field(_text, "", required=True),
            "title": _Field(_text, "", required=True),
            "year": _Field(_whole(1960, 2100), 0, required=True),
            "address": _Field(_address, "", required=True),
        }
        found = self._fields("source", value, fields)
        return None if found is None else Source(**found)

    def _published(self, value: Any) -> list[PublishedFigure]:
        fields = {
            "figure": _Field(_text, "", required=True),
            "words": _Field(_text, "", required=True),
            "address": _Field(_address, ""),
        }
        found = [self._fields(path, item, fields) for path, item in self._items("published", value)]
        return [PublishedFigure(**each) for each in found if each is not None]

    def _experiments(self, value: Any) -> dict[str, PublicationExperiment]:
        if not isinstance(value, dict) or not value:
            self.fault("experiments", "must have one experiment at least, by its name")
            return {}
        self._named = [str(name) for name in value]
        found = {}
        for name, item in value.items():
            path = child_path("experiments", str(name))
            try:
                _name(name)
            except ValueError as error:
                self.fault(path, str(error))
                continue
            if (experiment := self._experiment(name, path, item)) is not None:
                found[name] = experiment
        return found

    def _experiment(self, name: str, path: str, value: Any) -> PublicationExperiment | None:
        kind = value.get("kind") if isinstance(value, dict) else None
        if not isinstance(kind, str) or kind not in SETTINGS:
            self.fault(child_path(path, "kind"), f"must be one of {', '.join(SETTINGS)}")
            return None
        about = {"title": _Field(_text, "", required=True)}
        fields = {**about, **SETTINGS[kind]}
        values = self._fields(path, value, fields, ("kind", "full"))
        if values is None:
            return None
        full_path = child_path(path, "full")
        full = self._fields(full_path, value["full"], SETTINGS[kind], partial=True) if "full" in value else {}
        for one, other in _EITHER[kind]:
            if (one in value) == (other in value):
                self.fault(path, f"must have either {one} or {other}")
            elif (other in (full or {}) and one in value) or (one in (full or {}) and other in value):
                self.fault(full_path, f"must have {one if one in value else other}, as the experiment has")
        title = values.pop("title")
        if values.get("pool") == "psycopg_pool":
            self._psycopg_pool(path, value, values)
        return PublicationExperiment(name, title, kind, values, full or {})

    def _psycopg_pool(self, path: str, value: Mapping[str, Any], values: dict[str, Any]) -> None:
        """psycopg_pool has its own driver, and no overflow."""
        if value.get("driver", "psycopg") != "psycopg":
            self.fault(child_path(path, "driver"), "must be psycopg, the driver of psycopg_pool")
        if "overflow" in value:
            self.fault(child_path(path, "overflow"), "psycopg_pool has no overflow")
        values["driver"] = "psycopg"

    def _claims(self, value: Any, experiments: Mapping[str, PublicationExperiment]) -> list[PublishedClaim]:
        fields = {
            "id": _Field(_name, "", required=True),
            "text": _Field(_text, "", required=True),
            "published": _Field(_text, "", required=True),
            "about_load": _Field(_flag, default=True),
        }
        found: dict[str, PublishedClaim] = {}
        for path, item in self._items("claims", value):
            values = self._fields(path, item, fields, ("checks", "judged_if"))
            if values is None:
                continue
            if values["id"] in found:
                self.fault(child_path(path, "id"), f"{values['id']} is another claim's")
            where = child_path(path, "checks")
            checks = [self._check(each, one, experiments) for each, one in self._items(where, item.get("checks"))]
            where = child_path(path, "judged_if")
            conditions = (
                [self._condition(each, one, experiments) for each, one in self._items(where, item["judged_if"])]
                if "judged_if" in item
                else []
            )
            found[values["id"]] = PublishedClaim(
                **values,
                checks=tuple(check for check in checks if check),
                judged_if=tuple(condition for condition in conditions if condition),
            )
        return list(found.values())

    def _check(self, path: str, value: Any, experiments: Mapping[str, PublicationExperiment]) -> Check | None:
        ranges = {"reproduced": _Field(_range, (0.0, 0.0), required=True), "partly": _Field(_range)}
        found = self._quantity(path, value, ranges, experiments)
        if found is None:
            return None
        quantity, given = found
        reproduced, partly = given["reproduced"], given["partly"] or given["reproduced"]
        if not partly[0] <= reproduced[0] <= reproduced[1] <= partly[1]:
            self.fault(child_path(path, "partly"), "must hold the range of reproduced")
        return Check(quantity, reproduced, partly)

    def _condition(self, path: str, value: Any, experiments: Mapping[str, PublicationExperiment]) -> Condition | None:
        found = self._quantity(path, value, {"between": _Field(_range, (0.0, 0.0), required=True)}, experiments)
        return None if found is None else Condition(found[0], found[1]["between"])

    def _quantity(
        self, path: str, value: Any, ranges: Mapping[str, _Field], experiments: Mapping[str, PublicationExperiment]
    ) -> tuple[Quantity, dict[str, Any]] | None:
        fields = {
            "figure": _Field(_text, "", required=True),
            "of": _Field(_text, "", required=True),
            "against": _Field(_text, ""),
        }
        before = len(self.problems)
        found = self._fields(path, value, {**fields, **ranges})
        if found is None or len(self.problems) > before:
            return None
        for name in filter(found.get, ("of", "against")):
            experiment = experiments.get(found[name])
            if experiment is not None and found["figure"] not in experiment.figures:
                said = f"{experiment.name} does not measure {found['figure']}, but {', '.join(experiment.figures)}"
                self.fault(child_path(path, "figure"), said)
                return None
            if self._named is not None and found[name] not in self._named:
                nearest = get_close_matches(found[name], self._named, 1)
                said = f"there is no experiment {found[name]}"
                self.fault(child_path(path, name), said, nearest[0] if nearest else None)
        return Quantity(found["figure"], found["of"], found["against"]), found
