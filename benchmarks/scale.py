"""The arithmetic of docs/scale.md.

    python -m benchmarks.scale [--check]

rewrites the document's tables; with `--check` it only says whether they are up to date.

A cost was measured on one machine, and says where; an assumption was not measured. A design turns a rate of requests into
cores, connections and bytes, and reaches its limit where one part that cannot be multiplied is full.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from math import ceil, inf
from pathlib import Path

DOCUMENT = Path(__file__).parents[1] / "docs" / "scale.md"
RATES = (1_000, 100_000, 10_000_000)
DAY_S = 86_400
MB, GB, TB = 1e6, 1e9, 1e12


@dataclass(frozen=True)
class SourcedFigure:
    """A number, its unit and its source."""

    value: float
    unit: str
    source: str


MEASURED = {
    "app_us": SourcedFigure(
        1387, "us of CPU", "application, a request on a new connection: A.pool10.fair, 83 % of a core at 598/s"
    ),
    "kept_us": SourcedFigure(
        430, "us of CPU", "application, a request on a kept connection with one statement: benchmarks, /health"
    ),
    "cached_us": SourcedFigure(
        188, "us of CPU", "application, a request without the database: benchmarks, /live at 5305/s"
    ),
    "db_us": SourcedFigure(485, "us of CPU", "database, a request: A.pool10.fair, 29 % of a core at 598/s"),
    "lookup_us": SourcedFigure(38, "us of CPU", "database, a look-up of a link by its code alone"),
    "batched_us": SourcedFigure(15, "us of CPU", "database, a click inserted in a statement of 1,000"),
    "hold_ms": SourcedFigure(
        1.4, "ms", "upper bound of the median time a request holds a connection: the response time of A.pool10.fair"
    ),
    "backend_mb": SourcedFigure(1.95, "MB", "database, one more warm connection: the lab's memory experiment"),
    "wal_bytes": SourcedFigure(382, "bytes", "WAL, a click in a statement of its own"),
    "batched_wal_bytes": SourcedFigure(285, "bytes", "WAL, a click in a statement of 1,000"),
    "row_bytes": SourcedFigure(144, "bytes", "disk, a click: 83 in the table, 61 in its two indexes"),
}
ASSUMED = {
    "busy": SourcedFigure(0.6, "", "share of its capacity to which each part is used"),
    "clicks": SourcedFigure(0.9, "", "share of requests that are clicks; the others read a link"),
    "pool": SourcedFigure(10, "connections", "pool size of an application process, which uses one core"),
    "db_cores": SourcedFigure(32, "cores", "largest database machine one would buy"),
    "db_connections": SourcedFigure(
        500, "connections", "direct connections to a primary; memory would allow more, but snapshots get slow"
    ),
    "wal_mb_s": SourcedFigure(400, "MB/s", "WAL that a primary's log device and its replicas can take"),
    "bouncer_rate": SourcedFigure(20_000, "statements/s", "capacity of a PgBouncer, which uses one core"),
    "wire_bytes": SourcedFigure(1_000, "bytes", "a request and its answer, with a browser's headers"),
    "edge_us": SourcedFigure(20, "us of CPU", "redirect from memory in a compiled language"),
    "partition_gb": SourcedFigure(50, "GB", "largest partition one would vacuum and drop"),
    "kept_days": SourcedFigure(90, "days", "time for which single clicks are kept"),
}
M = {name: figure.value for name, figure in MEASURED.items()}
A = {name: figure.value for name, figure in ASSUMED.items()}


def cores(rate_per_s: float, each_us: float) -> float:
    """Cores that `rate_per_s` requests of this cost keep as busy as assumed."""
    return rate_per_s * each_us / 1e6 / A["busy"]


@dataclass(frozen=True)
class Design:
    """An arrangement of everything between a browser and the disk. Costs are per request, limits per primary database."""

    name: str
    app_us: float
    db_us: float
    """CPU of the primary."""
    wal_bytes: float
    statements: float
    """Statements on the primary."""
    hold_ms: float
    """How long a request holds its connection."""
    bouncers: bool = True
    """PgBouncers; without them, each process of the application has its own pool at the primary."""
    replica_us: float = 0.0

    def app_cores(self, rate_per_s: float) -> int:
        """Cores that the application needs, one process each."""
        return ceil(cores(rate_per_s, self.app_us))

    def connections(self, rate_per_s: float) -> int:
        """Connections at the primary: the pools' own, or behind PgBouncers what Little's law says are in use."""
        if not self.bouncers:
            return ceil(self.app_cores(rate_per_s) * A["pool"])
        return ceil(rate_per_s * self.statements * self.hold_ms / 1e3 / A["busy"])

    def pgbouncers(self, rate_per_s: float) -> int:
        """PgBouncer processes."""
        return ceil(rate_per_s * self.statements / A["bouncer_rate"]) if self.bouncers else 0

    def loads(self) -> dict[str, Callable[[float], float]]:
        """Share of each single part's capacity that is used at a rate."""
        return {
            "the primary's cores": lambda rate: cores(rate, self.db_us) / A["db_cores"],
            "the primary's connections": lambda rate: self.connections(rate) / A["db_connections"],
            "the primary's log": lambda rate: rate * self.wal_bytes / MB / A["wal_mb_s"],
        }

    def breaks_at(self) -> tuple[float, str]:
        """The highest rate, in whole hundreds a second, that one primary carries, and the part that is full then."""
        found = [(_highest(load), part) for part, load in self.loads().items()]
        return min(found)


def _highest(load: Callable[[float], float]) -> float:
    low, high = 0.0, 1e9
    while high - low > 50:
        middle = (low + high) / 2
        low, high = (middle, high) if load(middle) <= 1 else (low, middle)
    return low // 100 * 100 if low > 0 else inf


CLICKS = A["clicks"]
BATCH = 1000
DIRECT = Design("direct", M["app_us"], M["db_us"], CLICKS * M["wal_bytes"], 1, M["hold_ms"], bouncers=False)
POOLED = Design(
    "PgBouncer and replicas",
    M["kept_us"],
    CLICKS * M["db_us"],
    CLICKS * M["wal_bytes"],
    CLICKS,
    M["hold_ms"],
    replica_us=(1 - CLICKS) * M["db_us"],
)
BATCHED = Design(
    "links cached, clicks batched",
    M["cached_us"],
    CLICKS * M["batched_us"],
    CLICKS * M["batched_wal_bytes"],
    CLICKS / BATCH,
    BATCH * M["batched_us"] / 1e3 + M["hold_ms"],
    replica_us=(1 - CLICKS) * M["db_us"],
)
EDGE = replace(BATCHED, name="at the edge, in shards", app_us=A["edge_us"])
DESIGNS = (DIRECT, POOLED, BATCHED, EDGE)


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A Markdown table, its first column aligned left."""
    names = list(head)
    lines = [names, [":--", *["--:"] * (len(names) - 1)], *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def figures(known: dict[str, SourcedFigure]) -> str:
    """The table of costs, or of assumptions."""
    return table(("figure", "value"), ((f.source, f"{f.value:,g} {f.unit}".strip()) for f in known.values()))


def needs() -> str:
    """The table of each design at each rate; where one primary is too small it counts shards."""
    rows = []
    for design in DESIGNS:
        for rate in RATES:
            shards = ceil(rate / design.breaks_at()[0])
            rows.append((
                design.name, f"{rate:,}", f"{design.app_cores(rate):,}", f"{design.pgbouncers(rate):,}",
                f"{cores(rate, design.db_us):,.1f}",
                f"{design.connections(rate):,}", f"{design.connections(rate) * M['backend_mb'] / 1e3:,.1f}",
                f"{cores(rate, design.replica_us):,.1f}", f"{rate * design.wal_bytes / MB:,.1f}", f"{shards:,}",
            ))  # fmt: skip
    head = (
        "design", "requests/s", "app cores", "PgBouncers", "primary cores", "connections to it", "their memory, GB",
        "replica cores", "WAL MB/s", "primaries",
    )  # fmt: skip
    return table(head, rows)


def limits() -> str:
    """The table of the rates at which one primary is full."""
    rows = ((design.name, f"{rate:,.0f}", part) for design in DESIGNS for rate, part in [design.breaks_at()])
    return table(("design", "one primary carries, requests/s", "what is full then"), rows)


def storage() -> str:
    """The table of how fast clicks grow and how much goes over the network."""
    rows = []
    for rate in RATES:
        rows_a_day = rate * CLICKS * DAY_S
        bytes_a_day = rows_a_day * M["row_bytes"]
        a_day = max(1, ceil(bytes_a_day / GB / A["partition_gb"]))
        rows.append((
            f"{rate:,}", f"{rows_a_day / 1e6:,.0f} M", f"{bytes_a_day / GB:,.0f} GB", f"{a_day:,}",
            f"{a_day * A['kept_days']:,.0f}", f"{bytes_a_day * A['kept_days'] / TB:,.1f} TB",
            f"{rate * A['wire_bytes'] * 8 / 1e9:,.3f} Gbit/s",
        ))  # fmt: skip
    head = ("requests/s", "clicks a day", "on disk a day", "partitions a day", "partitions kept", "kept in all", "wire")
    return table(head, rows)


TABLES: dict[str, Callable[[], str]] = {
    "measured": lambda: figures(MEASURED),
    "assumed": lambda: figures(ASSUMED),
    "needs": needs,
    "limits": limits,
    "storage": storage,
}


def filled(text: str) -> str:
    """The document's text with each table computed again."""
    for name, make in TABLES.items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        new = make()
        text, found = pattern.subn(lambda match, new=new: f"{match[1]}{new}\n{match[2]}", text)  # type: ignore[misc]
        if found != 1:
            sys.exit(f"{DOCUMENT}: there must be one table called {name}, there are {found}")
    return text


def main() -> None:
    """Write the document's tables, or check them."""
    text = DOCUMENT.read_text()
    if "--check" in sys.argv[1:]:
        sys.exit(0 if filled(text) == text else f"{DOCUMENT}: its tables are not what benchmarks.scale computes")
    DOCUMENT.write_text(filled(text))


if __name__ == "__main__":
    main()
