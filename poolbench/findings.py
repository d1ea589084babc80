"""What a diagnosis consists of: findings, their kinds, their order and the words for their figures. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

KINDS = (
    "leak",
    "nested-checkout",
    "fork-shared",
    "pool-per-request",
    "connection-per-request",
    "idle-in-transaction",
    "work-while-holding",
    "n-plus-one",
    "slow-statement",
    "starvation",
    "pool-too-small",
    "pool-too-large",
)
OF_WAITING = ("starvation", "pool-too-small")
"""Kinds that cannot be told where other programs take the machine."""

_MISTAKE = 0.5
"""What is wrong at any share comes before all that costs less than this one."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that holds the application back. `where`: `file:line`; `endpoint`: `METHOD /path`; None where unknown."""

    kind: str
    where: str | None
    endpoint: str | None
    evidence: str
    advice: str
    share: float
    is_mistake: bool | None = None
    """Whether it is wrong at any share; None: as others of its kind."""
    fails_requests: bool = False
    """Whether requests fail because of it: the database refuses connections, or borrowers wait for each other in vain."""

    @property
    def weight(self) -> float:
        """What findings are ordered by: the share, at least half for a mistake; more than all others where requests fail."""
        if self.fails_requests:
            return 1 + self.share
        is_mistake = self.kind in KINDS[:5] if self.is_mistake is None else self.is_mistake
        return max(self.share, _MISTAKE) if is_mistake else self.share

    def to_json(self) -> dict[str, Any]:
        """As values for JSON."""
        return {
            "kind": self.kind,
            "where": self.where,
            "endpoint": self.endpoint,
            "evidence": self.evidence,
            "advice": self.advice,
            "share": round(self.share, 4),
        }


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Findings, the most important first, and the kinds that were looked for and not found."""

    findings: tuple[Finding, ...]
    checked: tuple[str, ...]
    notes: tuple[str, ...] = ()
    is_crowded_out: bool = False
    """Whether other programs took the CPU from the workers, so that no pool could be judged."""


def merged(findings: Iterable[Finding]) -> Iterator[Finding]:
    """One finding for each kind and place: that of the endpoint that it costs most, with the share of all of them."""
    places: dict[tuple[str, str | None], list[Finding]] = defaultdict(list)
    for finding in findings:
        places[finding.kind, finding.where].append(finding)
    for (_, where), found in places.items():
        if where is None:
            yield from found
            continue
        worst = max(found, key=lambda finding: finding.share)
        others = sorted({each.endpoint for each in found if each.endpoint} - {worst.endpoint or ""})
        also = f" The same in {', '.join(others[:3])}{' and others' if len(others) > 3 else ''}." if others else ""
        share = min(1.0, sum(each.share for each in found))
        yield replace(
            worst,
            share=share,
            evidence=worst.evidence + also,
            is_mistake=True if any(each.is_mistake for each in found) else worst.is_mistake,
            fails_requests=any(each.fails_requests for each in found),
        )


def in_times(count: int) -> str:
    """How often something happened, in words."""
    return "once" if count == 1 else f"{count:,} times"


def in_rows(mean: float) -> str:
    """A mean number of rows, in words."""
    shown = f"{mean:,.{0 if mean >= 10 or mean == int(mean) else 1}f}"
    return f"{shown} row{'' if shown == '1' else 's'}"


def in_ms(duration_ns: float) -> str:
    """A duration in ms, or in s from one second on."""
    if duration_ns >= 1e9:
        return in_seconds(duration_ns)
    return f"{duration_ns / 1e6:.{0 if duration_ns >= 1e7 else 1}f} ms"


def in_seconds(duration_ns: float) -> str:
    """A duration in s."""
    return f"{duration_ns / 1e9:.{0 if duration_ns >= 1e10 else 1}f} s"


def quoted(text: str) -> str:
    """A statement in quotation marks, shortened to 120 characters, at the end of a sentence."""
    return f"“{text if len(text) <= 120 else f'{text[:119]}…'}”."


def may_open(pools: int, processes: int, connections: int | None) -> str:
    """How many connections the pools of one line may open, in words; None: any number."""
    these = "this pool" if pools == 1 else f"these {pools} pools"
    if connections is None:
        return f"Nothing limits how many connections {these} may open"
    within = "" if processes == 1 else f" in {processes} processes"
    return f"{these.capitalize()} may open {connections} connections{within}{' together' if pools > 1 else ''}"
