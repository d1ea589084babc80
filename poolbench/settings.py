"""The settings of a pool, in one table, `POOL_SETTINGS`.

From it come the names in the environment, the parameters of the plugin's URL, the arguments of `create_engine`, the pools
that honour each setting, the checks of FairPool's constructor, and the table in the documentation.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

LONGEST_S = 10 * 365 * 86400
"""The longest duration that a setting can have, in s: ten years, well within what every clock and timer can take."""

SHORTEST_S = 0.01
"""No FairPool replaces a connection that is younger, in s, whatever its settings: else it could be too old for the request for
which it was opened.
"""

MOST_CONNECTIONS = 262_143
"""The largest `max_connections` that PostgreSQL accepts."""

MOST_WAITING = 1_000_000
"""The longest queue that a setting can allow."""


class Kind(Protocol):
    """Which values a setting can have. `wanted` describes them, in words that fit after "must be"."""

    wanted: str

    def __call__(self, text: str) -> Any:
        """Parse a value. Raises ValueError(wanted)."""

    def accepts(self, value: Any) -> bool:
        """Whether an argument can have this value."""


class Whole:
    """Whole numbers from `least`, to `most` if that is given."""

    def __init__(self, least: int, most: int | None = None) -> None:
        self._least, self._most = least, most
        self.wanted = f"a whole number from {least}" + ("" if most is None else f" to {most}")

    def __call__(self, text: str) -> int:
        """As in Kind."""
        if not re.fullmatch("-?[0-9]{1,20}", text) or not self.accepts(number := int(text)):
            raise ValueError(self.wanted)
        return number

    def accepts(self, value: Any) -> bool:
        """As in Kind."""
        whole = isinstance(value, int) and not isinstance(value, bool)
        return whole and value >= self._least and (self._most is None or value <= self._most)


class Number:
    """Numbers from `least` to `most`, both included; `wanted` describes them in words."""

    def __init__(self, wanted: str, least: float, most: float) -> None:
        self.wanted, self._least, self._most = wanted, least, most

    def __call__(self, text: str) -> float:
        """As in Kind."""
        try:
            number = float(text)
        except ValueError:
            raise ValueError(self.wanted) from None
        # Python would also read "1_0", and digits of other scripts.
        if not self.accepts(number) or "_" in text or not text.isascii():
            raise ValueError(self.wanted)
        return number

    def accepts(self, value: Any) -> bool:
        """As in Kind."""
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return is_number and self._least <= value <= self._most


class Switch:
    """On or off, in any of the usual words."""

    wanted = "on or off"
    _words = {"on": True, "true": True, "yes": True, "1": True, "off": False, "false": False, "no": False, "0": False}  # noqa: RUF012

    def __call__(self, text: str) -> bool:
        """As in Kind."""
        if text.lower() not in self._words:
            raise ValueError(self.wanted)
        return self._words[text.lower()]

    def accepts(self, value: Any) -> bool:
        """As in Kind."""
        return value in (True, False)


def seconds(most_s: float = LONGEST_S, least_s: float = 0) -> Number:
    """Durations from `least_s` to `most_s`, in s."""
    wanted = "a number of seconds, 0 or more" if not least_s else f"a number of seconds, {least_s:g} or more"
    return Number(f"{wanted}, at most {most_s:.0f}", least_s, most_s)


@dataclass(frozen=True)
class PoolSetting:
    """One setting of a pool."""

    argument: str
    """Its name among FairPool's arguments."""
    field: str
    """Its name in `db.settings.PoolSettings`; durations end with `_s`."""
    variable: str
    """Its name in the service's environment."""
    parameters: tuple[str, ...]
    """Its names in the plugin's URL; the first is the documented one."""
    engine_argument: str
    """Its name among `create_engine`'s arguments."""
    kind: Kind
    pools: tuple[str, ...]
    """The strategies that honour it."""
    default: Any
    """The service's default: a value, or a function of the strategy and of the values (by field) of the rows above."""
    default_text: str
    """The default as the documentation shows it."""
    meaning: str
    unset: tuple[Any, ...] = ()
    """Values of the argument that are not of this kind, and mean that nothing is set."""
    any_engine: bool = False
    """Whether `create_engine` takes it for every pool, with effect or without."""


_KEPT = ("queue", "fair")
_ONLY_FAIR = ("fair",)


def _row(
    argument: str,
    variable: str,
    parameters: str,
    kind: Kind,
    pools: tuple[str, ...],
    default: Any,
    shown: str,
    meaning: str,
    **more: Any,
) -> PoolSetting:
    names = tuple(parameters.split())
    field = more.pop("field", argument)
    engine_argument = more.pop("engine_argument", argument)
    return PoolSetting(
        argument, field, f"DB_POOL_{variable}", names, engine_argument, kind, pools, default, shown, meaning, **more
    )


POOL_SETTINGS: tuple[PoolSetting, ...] = (
    _row("pool_size", "SIZE", "pool_size", Whole(0, MOST_CONNECTIONS), _KEPT, 10, "10",
         "connections kept open; 0: no limit", field="size"),
    _row("max_overflow", "MAX_OVERFLOW", "max_overflow", Whole(-1, MOST_CONNECTIONS), _KEPT, 0, "0",
         "connections beyond those, closed on return; 0: none, -1: no limit"),
    _row("timeout", "TIMEOUT", "pool_timeout", seconds(), _KEPT, 5.0, "5 s",
         "longest wait for a connection; 0: no wait", field="timeout_s", engine_argument="pool_timeout", unset=(None,)),
    _row("min_size", "MIN", "min_size", Whole(0, MOST_CONNECTIONS), ("per-request", "fair"),
         lambda strategy, _: 5 if strategy == "per-request" else 0, "0; 5 for `per-request`",
         "connections held ready, 0: none; for `per-request`, opened at once, 0: one"),
    _row("recycle", "RECYCLE", "recycle pool_recycle", seconds(), _KEPT, 3600.0, "3600 s",
         "age at which a connection is replaced when it is asked for; 0: never",
         field="recycle_s", engine_argument="pool_recycle", unset=(-1, None), any_engine=True),
    _row("max_lifetime", "MAX_LIFETIME", "max_lifetime", seconds(), _ONLY_FAIR,
         lambda _, values: values["recycle_s"], "`DB_POOL_RECYCLE`",
         "age at which a connection is closed, as soon as nobody uses it; each draws its own from the last tenth; 0: never",
         field="max_lifetime_s", unset=(None,)),
    _row("lifetime_jitter", "LIFETIME_JITTER", "lifetime_jitter", Number("a number from 0 to 1", 0, 1), _ONLY_FAIR,
         0.1, "0.1", "the share of the lifetime from which each connection draws its own end; 0: all have the same lifetime"),
    _row("idle_timeout", "IDLE", "idle_timeout", seconds(), _ONLY_FAIR, 1800.0, "1800 s",
         "idleness after which a connection is closed, down to the minimum; 0: never",
         field="idle_s", unset=(None,)),
    _row("warm_up", "WARM_UP", "warm_up", Switch(), _ONLY_FAIR, False, "off",
         "open the minimum of connections as soon as the engine is made"),
    _row("openers", "OPENERS", "openers", Whole(1, MOST_CONNECTIONS), _ONLY_FAIR, None, "as many as the queue needs",
         "most connections being opened at one time for those who wait", unset=(None,)),
    _row("pre_ping", "PRE_PING", "pre_ping pool_pre_ping", Switch(), _KEPT, False, "off",
         "a test of the connection before each loan", engine_argument="pool_pre_ping", unset=(None,), any_engine=True),
    _row("ping_idle", "PING_IDLE", "ping_idle", seconds(), _ONLY_FAIR, 30.0, "30 s",
         "a test, before it is lent, of a connection that was idle for longer; 0: none", field="ping_idle_s", unset=(None,)),
    _row("use_lifo", "USE_LIFO", "pool_use_lifo", Switch(), _KEPT, None, "on for `fair`, else off",
         "lend the connection that was returned last, so that those not needed become idle",
         engine_argument="pool_use_lifo"),
    _row("max_waiting", "MAX_WAITING", "max_waiting", Whole(0, MOST_WAITING), _ONLY_FAIR,
         lambda strategy, values: min(10 * values["size"], MOST_WAITING) if strategy == "fair" else None, "10 x size",
         "longest queue for a connection; a request beyond it is refused at once; 0: nobody may wait", unset=(None,)),
    _row("max_wait", "MAX_WAIT", "max_wait", seconds(), _ONLY_FAIR,
         lambda strategy, values: values["timeout_s"] if strategy == "fair" else None, "`DB_POOL_TIMEOUT`",
         "longest estimated wait; a request that would wait longer is refused at once; 0: no limit",
         field="max_wait_s", unset=(None,)),
    _row("leak_threshold", "LEAK_THRESHOLD", "leak_threshold", seconds(), _ONLY_FAIR, 0.0, "off",
         "a longer loan is logged once, with the borrower's line and stack; 0: off", field="leak_threshold_s", unset=(None,)),
    _row("maintenance_interval", "MAINTENANCE_INTERVAL", "maintenance_interval", seconds(least_s=0.001), _ONLY_FAIR,
         1.0, "1 s", "time between rounds of housekeeping", field="maintenance_interval_s"),
    _row("detect_deadlock", "DETECT_DEADLOCK", "detect_deadlock", Switch(), _ONLY_FAIR, False, "off",
         "refuse at once when every connection is held by somebody who waits for another"),
)  # fmt: skip
"""All settings, in the order of the documentation. FairPool has these arguments and SQLAlchemy's common ones."""


def check(arguments: Mapping[str, Any]) -> None:
    """Raise ValueError, in one line that names the argument, if FairPool cannot have one of these arguments."""
    for setting in POOL_SETTINGS:
        if setting.argument in arguments:
            value = arguments[setting.argument]
            if value not in setting.unset and not setting.kind.accepts(value):
                raise ValueError(f"{setting.argument} must be {setting.kind.wanted}, not {reprlib.repr(value)}")
    size, least = arguments.get("pool_size", 0), arguments.get("min_size", 0)
    if size and least > size:
        raise ValueError(f"min_size ({least}) must not be larger than pool_size ({size})")


def in_effect(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Those of FairPool's arguments for which 0 means no limit, as it uses them: -1 or None without a limit."""
    names = ("max_lifetime", "idle_timeout", "ping_idle", "max_wait", "leak_threshold")
    recycle = max(arguments["recycle"], SHORTEST_S) if (arguments["recycle"] or -1) > 0 else -1
    return {"recycle": recycle, **{name: arguments[name] or None for name in names}}


def honoured(pool: str) -> frozenset[str]:
    """The names, in the environment, of the settings that a pool honours."""
    return frozenset(setting.variable for setting in POOL_SETTINGS if pool in setting.pools)


def engine_arguments(pool: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `create_engine` for a pool, from values by FairPool's argument; those that the pool does not honour,
    or that are None, are left out.
    """
    arguments = {
        setting.engine_argument: values[setting.argument]
        for setting in POOL_SETTINGS
        if pool in setting.pools and values.get(setting.argument) is not None
    }
    if arguments.get("pool_recycle") == 0:
        # SQLAlchemy's own word for "never": 0 would mean "at every loan".
        arguments["pool_recycle"] = -1
    return arguments


def read(look_up: Callable[[PoolSetting], Any], strategy: str) -> dict[str, Any]:
    """All settings by field: what `look_up` finds for each, or its default where it finds None."""
    values: dict[str, Any] = {}
    for setting in POOL_SETTINGS:
        value = look_up(setting)
        if value is None:
            value = setting.default(strategy, values) if callable(setting.default) else setting.default
        values[setting.field] = value
    return values


def documentation() -> Iterator[str]:
    """The rows of the documentation's table, as Markdown."""
    yield "| environment | URL | default of the service | honoured by | meaning |"
    yield "| --- | --- | --- | --- | --- |"
    for row in POOL_SETTINGS:
        pools = ", ".join(f"`{pool}`" for pool in row.pools)
        yield f"| `{row.variable}` | `{row.parameters[0]}` | {row.default_text} | {pools} | {row.meaning} |"
