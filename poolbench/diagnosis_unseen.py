"""Statements of which no engine tells: those on cursors of the driver's own, and the fetching from server-side cursors. Pure.

The stacks say where they are executed, and the database what may have been.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from poolbench import observed as seen
from poolbench.advice import for_repeated, for_slow
from poolbench.diagnosis_case import LEAST_LOANS, LEAST_LOOKS, LEAST_NS, Case
from poolbench.findings import Finding, in_ms, in_rows, quoted
from poolbench.observed import SampleSum
from poolbench.repeats import changes
from poolbench.surroundings import FETCH

_NO_QUERIES = ("begin", "commit", "rollback", "savepoint", "release", "declare", "fetch", "close", "copy")
"""How the keys of statements begin that no index makes faster, or that handle many rows."""
_DECLARES = re.compile(r"declare.*?cursor(?:with(?:out)?hold)?for(.*)", re.DOTALL)
"""The key of a statement that opens a server-side cursor, and in its group that of the statement whose rows this has."""
_SLOW_FETCH_MS, _SLOW_FETCH_MS_A_ROW = 20, 0.2
"""A server-side cursor whose rows take the database this long each time, and each this long, is slow, and no long export."""


def slow_unseen(case: Case) -> Iterator[tuple[Finding, float]]:
    """Slow statements on cursors of the driver's own, and slow fetching; with the waiting that they explain."""
    known = {case.key_of(key.text) for key in case.statements}
    active_s = {name: active_s for name, active_s in case.server.active_s.items() if name not in known}
    for (engine, endpoint, place), row, own_ns in _unseen(case):
        loans = max(1, case.loans_of(engine, endpoint))
        if own_ns < seen.SLOW_NS * loans:
            continue
        names = [name for name, each_s in active_s.items() if 1e9 * each_s >= 0.5 * own_ns and _may_be_slow(case, name)]
        if not names:
            continue
        waits_ns = row.blamed_ns * case.blame * own_ns / row.own_ns
        if FETCH in names:
            at, text = _declared(case, endpoint)
            what = f"The rows of {'this statement' if at else 'a server-side cursor'} are slow to fetch"
            what += f" at {place}" if at not in {"", place} else ""
        else:
            counted = (case.server.statements or {}).get(names[0]) if len(names) == 1 else None
            at, text = "", counted.text if counted else ""
            what = "The database executed statements of a cursor of the driver's here"
        finding = Finding(
            "slow-statement",
            at or place or None,
            endpoint or None,
            f"{what}, {in_ms(own_ns / loans)} for each loan of this endpoint{f': {quoted(text)}' if text else '.'}",
            for_slow(text, case.server.indexes),
            case.share(case.in_requests(endpoint, own_ns) + waits_ns),
        )
        yield finding, waits_ns


def repeated_unseen(case: Case) -> Iterator[tuple[Finding, float]]:
    """The same reading again and again on cursors of the driver's own, at the line that spends most; with the waiting that it
    explains.
    """
    counted, known = case.server.statements or {}, {case.key_of(key.text) for key in case.statements}
    (engine, endpoint, place), row, own_ns = max(
        _unseen(case), key=lambda each: each[2], default=(("", "", ""), SampleSum(), 0)
    )
    loans = max(1, case.loans_of(engine, endpoint))
    many = [
        each
        for name, each in counted.items()
        if name not in known
        and not (name.startswith(_NO_QUERIES) or changes(each.text))
        and each.calls >= seen.REPEATED_LOANS * loans
        and each.rows < seen.FEW_ROWS * each.calls
    ]
    if own_ns < LEAST_NS * loans or loans < LEAST_LOANS or not many:
        return
    most = max(many, key=lambda each: each.calls)
    waits_ns = row.blamed_ns * case.blame * own_ns / row.own_ns
    finding = Finding(
        "n-plus-one",
        place or None,
        endpoint or None,
        f"On a cursor of the driver's, the same statement was executed {most.calls / loans:.0f} times for each loan of this"
        f" endpoint, for {in_rows(most.rows / most.calls)} each time, {in_ms(own_ns / loans)} in all: {quoted(most.text)}",
        for_repeated(most.text),
        case.share(case.in_requests(endpoint, own_ns) + waits_ns),
    )
    yield finding, waits_ns


def _unseen(case: Case) -> Iterator[tuple[tuple[str, str, str], SampleSum, int]]:
    """The places where the database mostly executed statements of which no engine tells, and their time in ns."""
    for at, row in case.by_place(seen.STATEMENT).items():
        own_ns = row.own_ns - case.executed_at[at[1:]]
        if row.looks >= LEAST_LOOKS and own_ns >= 0.5 * row.own_ns:
            yield at, row, own_ns


def _declared(case: Case, endpoint: str) -> tuple[str, str]:
    """The place and the text of the one statement of an endpoint that has a server-side cursor; "" if none or several have."""
    counted = case.server.statements or {}
    named = {match[1] for match in map(_DECLARES.match, (*counted, *case.server.active_s)) if match and match[1]}
    found = {
        (key.place, key.text)
        for key in case.statements
        if key.endpoint == endpoint and any(case.key_of(key.text).startswith(each) for each in named)
    }
    return found.pop() if len(found) == 1 else ("", "")


def _may_be_slow(case: Case, name: str) -> bool:
    """Whether a statement of which only the database tells may be a slow one: not if it is known to be quick, or a batch."""
    counted = (case.server.statements or {}).get(name)
    if name == FETCH and counted is not None:
        least_ms = max(_SLOW_FETCH_MS * counted.calls, _SLOW_FETCH_MS_A_ROW * counted.rows)
        # Without what sessions waited for the CPU: on a busy machine, an export is slow, too.
        return counted.total_ms - 1000 * case.server.database_queued_s >= least_ms * case.crowding
    if name.startswith(_NO_QUERIES) or case.server.lock_waits.get(name, 0.0) > 0.5:
        return False
    if counted is None:
        return True
    is_batch = counted.rows >= seen.MANY_ROWS * counted.calls
    return not is_batch and 1e6 * counted.total_ms >= seen.QUICK_NS * counted.calls * case.crowding
