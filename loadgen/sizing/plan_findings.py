"""A plan as blocks: the advice, a table of the sizes, the run that it is based on, and on request the formulas. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from itertools import groupby
from math import inf, isfinite

from loadgen.sizing.measured import variation
from loadgen.sizing.predict import (
    WAITING_PER_CONNECTION,
    Formulas,
    Prediction,
    Question,
    doubts,
    grows,
    overloaded,
    partings,
    recommended,
)
from loadgen.sizing.remedy import remedy
from reports.blocks import (
    ABSENT,
    Axis,
    Block,
    Cell,
    Chart,
    Charts,
    Column,
    Items,
    Page,
    Section,
    Series,
    Table,
    Text,
    decimal,
    percent,
)
from reports.page.charts import TIME

_MOST_LOST = 0.05
"""Share of requests that may be refused or give up where a size is said to keep up."""

_RESPONSE = "response p99"
_OVERLOADED = "overloaded"
"""In place of response times that only tell how long the overload has lasted."""
_SIZE = Axis("pool size of each server", "")
_DRAWN: tuple[tuple[str, Callable[[Prediction], float]], ...] = (
    (_RESPONSE, lambda each: each.response_p99_ms),
    ("wait p99", lambda each: each.wait_p99_ms),
    ("wait p50", lambda each: each.wait_p50_ms),
)


def plan_page(question: Question, found: Sequence[Prediction], name: str, *, explain: bool = False) -> Page:
    """The whole result; `name` is that of the measured report. With `explain`, the formulas come after the advice.

    JSON: `sizes` (each with its `formulas`), `workload`, `arrangement`, `recommended` (a size), `warnings`.
    """
    measured, arrangement = question.workload, question.arrangement
    change, reason = remedy(question, found)
    best = recommended(found, question.p99_ms)
    blocks: list[Block] = [
        Text(_advice(question, found), "good" if best is not None and _keeps_up(question, best) else "warn"),
        Text(f"To change first: {change}. {reason[:1].upper()}{reason[1:]}."),
        _table("sizes-predicted", "Each pool size", _HEADINGS, _rows(question, found)),
        Charts((_chart(question, found),)),
        *(Text(premise) for premise in _premises(question, name)),
        Text(_own_error(question, found)),
    ]
    if warnings := doubts(question, found):
        blocks.append(Items(tuple(Text(f"Doubtful: {warning}.") for warning in warnings)))
    if explain:
        blocks += _explanation(question, found)
    data = {
        "workload": {
            "rate_per_s": measured.rate_per_s,
            "hold_mean_ms": measured.holds.mean,
            "hold_p99_ms": measured.holds.quantile(0.99),
            "hold_variation": variation(measured.holds),
            "connect_mean_ms": measured.connects.mean if measured.connects else None,
            "own_ms": measured.own_s * 1000,
            "cpu_mean_ms": measured.cpu.mean_ms if measured.cpu else None,
            "loan_cpu_mean_ms": measured.cpu.loan_ms.mean if measured.cpu else None,
        },
        "arrangement": {
            **asdict(arrangement),
            "size": None,
            "rate_per_s": question.rate_per_s,
            "arrival_variation": question.arrival_variation,
            "connect_s": question.connect_s,
            "requests": question.requests,
            "seed": question.seed,
        },
        "recommended": best.size if best else None,
        "remedy": change,
        "reason": reason,
        "warnings": warnings,
    }
    sizes = [
        asdict(each) | {"overloaded": grows(question, each), "partings": partings(question, each)} for each in found
    ]
    section = Section("sizes", "Predicted for each pool size", tuple(blocks), menu="Sizes", data=sizes)
    return Page("How big should the pool be?", f"predicted from {name}", (section,), data)


def _chart(question: Question, found: Sequence[Prediction]) -> Chart:
    sizes = tuple(float(each.size) for each in found)
    series = tuple(
        Series(label, sizes, tuple(y if isfinite(y) else None for y in map(figure, found)), colour)
        for colour, (label, figure) in enumerate(_DRAWN)
        if label != _RESPONSE or not any(grows(question, each) for each in found)
    )
    return Chart("times", "Times by pool size", "line", _SIZE, TIME, series)


def _premises(question: Question, name: str) -> Iterator[str]:
    measured, arrangement = question.workload, question.arrangement
    connecting = f"{decimal(measured.connects.mean, 3)} ms to connect" if measured.connects else "no connection opened"
    held = f"held for {decimal(measured.holds.mean, 3)} ms (p99 {decimal(measured.holds.quantile(0.99), 3)} ms)"
    own = f"{decimal(measured.own_s * 1000, 3)} ms beside the database"
    if measured.cpu is not None:
        held += f", {decimal(measured.cpu.loan_ms.mean, 3)} ms of it the worker's CPU"
        own = f"{decimal(measured.cpu.mean_ms, 3)} ms of the worker's CPU in all"
    untold = "" if measured.cpu else " (CPU of the worker not told by the answers; poolbench.server_timing does)"
    rate = f"{decimal(measured.rate_per_s, 4)} requests for a connection a second"
    yield f"Measured in {name}: {rate}, {held}, {connecting}, {own}{untold}."
    known = {1.0: "Poisson", 0.0: "uniform"}
    law = known.get(question.arrival_variation, f"variation {decimal(question.arrival_variation, 2)}")
    servers = f"{arrangement.servers} server{'s' * (arrangement.servers > 1)}{_kind(arrangement.slots)}"
    if arrangement.cores < inf:
        servers += f" on {decimal(arrangement.cores)} core{'s' * (arrangement.cores != 1)}"
    by_default = f"{WAITING_PER_CONNECTION} x size" if arrangement.hand_over == "fifo" else "no limit"
    queue = by_default if arrangement.max_waiting is None else f"{arrangement.max_waiting}"
    pools = (
        f"{_ORDERS[arrangement.hand_over]}, for at most {decimal(arrangement.timeout_s)} s, waiting at most: {queue}"
    )
    size = f"{question.requests} requests for each size, seed {question.seed}"
    yield f"Simulated: {decimal(question.rate_per_s, 4)} requests/s ({law}) at {servers}, {pools}; {size}."
    if arrangement.db_cores < inf:
        share = f"{arrangement.db_share:.0%}"
        cores = decimal(arrangement.db_cores)
        when = "that time" if measured.cpu is None else "the time in which it does not compute"
        yield f"The database has {cores} cores; a request that holds a connection needs one for {share} of {when}."


def _own_error(question: Question, found: Sequence[Prediction]) -> str:
    """The largest error that the simulation itself leaves, in a sentence."""
    waits, tails = ([getattr(each, name) for each in found] for name in ("wait_mean_error_ms", "response_p99_error_ms"))
    wait_ms, tail_ms = (max((e for e in errors if isfinite(e)), default=None) for errors in (waits, tails))
    tail = "" if any(grows(question, each) for each in found) else f" and {_ms(tail_ms)} ms in the response p99"
    return (
        f"The simulation's own error is at most {_ms(wait_ms)} ms in the mean wait{tail} (95 %, from ten parts of it)."
    )


def _kind(slots: int | None) -> str:
    return "" if slots is None else f" of {slots} thread{'s' * (slots > 1)}"


_HEADINGS = (
    *(
        "size",
        "connections",
        "wait p50 ms",
        "wait p99 ms",
        "gave up",
        "refused",
        "in use",
        "answered/s",
        "held ms",
    ),
    *("response p99 ms", "worker CPU", "database cores in use"),
)
_ALIKE = slice(2, 6)
"""Columns by which sizes are told apart: the waits, and the requests that gave up or were refused. Also the last ones."""

_ORDERS = {
    "fifo": "connections are lent in order of arrival",
    "barging": "a connection goes to whichever request asks first",
}


def _rows(question: Question, found: Sequence[Prediction]) -> list[tuple[str, ...]]:
    """A row for each size; sizes one after the other that do equally well share one, such as "10 to 40"."""
    rows = [_row(question, each) for each in found]
    shown = []
    for _, some in groupby(rows, lambda row: (row[_ALIKE], row[7:10])):
        first, *_, last = [*some] * 2
        same = first == last
        shown.append(first if same else tuple(a if a == b else f"{a} to {b}" for a, b in zip(first, last, strict=True)))
    return shown


def _row(question: Question, found: Prediction) -> tuple[str, ...]:
    return (
        str(found.size),
        "no limit" if found.connections is None else str(found.connections),
        _ms(found.wait_p50_ms),
        _ms(found.wait_p99_ms),
        _share(found.timed_out),
        _share(found.shed),
        "" if found.connections is None else f"{found.utilisation:.0%}",
        f"{found.throughput_per_s:.1f}",
        _ms(found.hold_mean_ms),
        _OVERLOADED if grows(question, found) else _ms(found.response_p99_ms),
        "" if found.cpu_busy is None else f"{found.cpu_busy:.0%}",
        "" if found.db_busy is None else f"{found.db_busy:.0%}",
    )


_FORMULA_HEADINGS = (
    *("size", "load"),
    *("mean: M/M/c", "G/G/c", "simulated"),
    *("p50: M/M/c", "G/G/c", "simulated"),
    *("p99: M/M/c", "G/G/c", "simulated"),
    *("lost: M/M/c", "least", "simulated"),
)


def _advice(question: Question, found: Sequence[Prediction]) -> str:
    """The size to use and what it brings, and what the next smaller one would lose, in sentences."""
    best = recommended(found, question.p99_ms)
    target = (
        "as good as the best"
        if question.p99_ms is None
        else f"within a p99 of {decimal(question.p99_ms)} ms, at most 0.1 % lost"
    )
    if best is None and question.p99_ms is None:
        return "No size keeps up: hardly any request is answered while the load lasts."
    if best is None:
        return f"No size is {target}."
    connections = "" if best.connections is None else f" ({best.connections} connections in all)"
    pool, told = f"a pool of {best.size} for each server{connections}", _outcome(question, best)
    if not _keeps_up(question, best):
        return f"No size keeps up. With {pool}, as good as any: {told}."
    use = f"Use {pool}: the smallest size that is {target}. {told}."
    smaller = max((each for each in found if each.size < best.size), key=lambda each: each.size, default=None)
    return use if smaller is None else f"{use} With {smaller.size}: {_outcome(question, smaller)}."


def _keeps_up(question: Question, found: Prediction) -> bool:
    """Whether few requests are lost, and the workers' CPU and places and the database's cores are enough."""
    return found.lost <= _MOST_LOST and not overloaded(question)


def _outcome(question: Question, found: Prediction) -> str:
    """What becomes of requests at one size: the p99, and those that are refused or give up."""
    is_growing = grows(question, found)
    times = "the queue grows as long as the load lasts" if is_growing else f"p99 {_ms(found.response_p99_ms)} ms"
    lost = [
        f"{percent(share)} {word}"
        for share, word in ((found.shed, "refused"), (found.timed_out, "gave up waiting"))
        if share
    ]
    return ", ".join([times, *(lost or ["none refused"])])


def _explanation(question: Question, found: Sequence[Prediction]) -> Iterator[Block]:
    servers, holds = question.arrangement.servers, question.workload.holds
    yield Text(
        f"Formulas, for each server alone: {decimal(question.rate_per_s / servers, 4)} requests/s, holds of "
        f"{decimal(holds.mean, 3)} ms with"
        f" a variation (variance / mean^2) of {decimal(variation(holds), 2)}, waits in ms."
    )
    yield Text(
        "M/M/c: Erlang's C. G/G/c: Allen and Cunneen (M/G/c: Lee and Longton). Lost: Barrer's timeout or the full queue, the"
        " greater of both; at least 1 - 1/load."
    )
    rows = [_formula_row(each, each.formulas) for each in found if each.formulas is not None]
    if rows:
        yield _table("formulas", "Formulas beside the simulation", _FORMULA_HEADINGS, rows)
    reasons = [f"size {each.size}: {reason}" for each in found for reason in partings(question, each)]
    yield Text("Where they differ:" if reasons else "They differ nowhere by more than 10% or 0.5 ms.")
    if reasons:
        yield Items(tuple(map(Text, reasons)))


def _formula_row(found: Prediction, said: Formulas) -> tuple[str, ...]:
    return (
        *(str(found.size), f"{said.load:.0%}"),
        *(_ms(said.mmc_mean_ms), _ms(said.ggc_mean_ms), _ms(found.wait_mean_ms)),
        *(_ms(said.mmc_p50_ms), _ms(said.ggc_p50_ms), _ms(found.wait_p50_ms)),
        *(_ms(said.mmc_p99_ms), _ms(said.ggc_p99_ms), _ms(found.wait_p99_ms)),
        *(_share(max(said.timed_out, said.shed)), _share(said.lost), _share(found.lost)),
    )


def _table(table_id: str, caption: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table of figures whose first column names the row; empty columns are left out."""
    kept = [i for i, _ in enumerate(headings) if any(row[i] for row in rows)]
    columns = tuple(Column(headings[i], "number" if i else "text") for i in kept)
    return Table(table_id, caption, columns, tuple(tuple(Cell(row[i]) for i in kept) for row in rows))


def _ms(value_ms: float | None) -> str:
    if value_ms is None or not isfinite(value_ms):
        return ABSENT
    return f"{value_ms:.2f}" if value_ms < 100 else f"{value_ms:.0f}"


def _share(share: float) -> str:
    return "0%" if not share else f"{share:.2%}"
