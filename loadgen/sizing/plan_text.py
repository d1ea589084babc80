"""A plan as text and as JSON: values in, text out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from math import inf, isfinite
from typing import Any

from loadgen.sizing.measured import variation
from loadgen.sizing.predict import WAITING_PER_CONNECTION, Formulas, Prediction, Question, doubts, partings, recommended

_SAID_LOST = 0.001


def to_text(question: Question, found: Sequence[Prediction], name: str, *, explain: bool = False) -> str:
    """A table of the sizes below what it was made from; with `explain` the formulas after it."""
    blocks = [*_premises(question, name), "", *_columns(_HEADINGS, map(_row, found)), "", _advice(question, found)]
    if explain:
        blocks += ["", *_explanation(question, found)]
    return "\n".join(blocks) + "\n"


def to_json(question: Question, found: Sequence[Prediction]) -> str:
    """The same as data: `workload`, `arrangement`, `sizes` (each with its `formulas`), `recommended`
    (a size), `warnings`. No number: null."""
    measured, arrangement = question.workload, question.arrangement
    document = {
        "workload": {
            "rate_per_s": measured.rate_per_s,
            "hold_mean_ms": measured.holds.mean,
            "hold_p99_ms": measured.holds.quantile(0.99),
            "hold_variation": variation(measured.holds),
            "connect_mean_ms": measured.connects.mean if measured.connects else None,
            "own_ms": measured.own_s * 1000,
        },
        "arrangement": {
            **asdict(arrangement), "size": None, "rate_per_s": question.rate_per_s,
            "arrival_variation": question.arrival_variation, "connect_s": question.connect_s,
            "requests": question.requests, "seed": question.seed,
        },
        "sizes": [asdict(each) | {"partings": partings(question, each)} for each in found],
        "recommended": best.size if (best := recommended(found, question.p99_ms)) else None,
        "warnings": doubts(question),
    }  # fmt: skip
    return json.dumps(_finite(document), indent=2) + "\n"


def _finite(value: Any) -> Any:
    """With null for what JSON has no number for."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def _premises(question: Question, name: str) -> Iterator[str]:
    measured, arrangement = question.workload, question.arrangement
    connecting = f"{measured.connects.mean:.3g} ms to connect" if measured.connects else "no connection opened"
    held = f"held for {measured.holds.mean:.3g} ms (p99 {measured.holds.quantile(0.99):.3g} ms)"
    own = f"{measured.own_s * 1000:.3g} ms beside the database"
    yield f"Measured in {name}: {measured.rate_per_s:.4g} loans/s, {held}, {connecting}, {own}."
    known = {1.0: "Poisson", 0.0: "uniform"}
    law = known.get(question.arrival_variation, f"variation {question.arrival_variation:.2g}")
    servers = f"{arrangement.servers} server{'s' * (arrangement.servers > 1)}"
    by_default = f"{WAITING_PER_CONNECTION} x size" if arrangement.hand_over == "fifo" else "no limit"
    queue = by_default if arrangement.max_waiting is None else f"{arrangement.max_waiting}"
    pools = f"{arrangement.hand_over} hand-over, timeout {arrangement.timeout_s:g} s, waiting at most: {queue}"
    size = f"{question.requests} requests for each size, seed {question.seed}"
    yield f"Simulated: {question.rate_per_s:.4g} requests/s ({law}) at {servers}, {pools}; {size}."
    if arrangement.db_cores < inf:
        share = f"{arrangement.db_share:.0%}"
        yield f"The database has {arrangement.db_cores:g} cores; a hold needs one for {share} of its time."


_HEADINGS = (
    *("size", "connections", "wait p50 ms", "wait p99 ms", "timed out", "shed", "in use", "served/s", "hold ms"),
    *("response p99 ms", "db cores in use"),
)


def _row(found: Prediction) -> tuple[str, ...]:
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
        _ms(found.response_p99_ms),
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
    best = recommended(found, question.p99_ms)
    target = (
        "as good as the best"
        if question.p99_ms is None
        else f"within a p99 of {question.p99_ms:g} ms, at most 0.1% lost"
    )
    if best is None:
        return f"No size is {target}."
    connections = "" if best.connections is None else f", {best.connections} connections in all"
    lost = f", {best.lost:.1%} lost" if best.lost > _SAID_LOST else ""
    return f"Smallest size {target}: {best.size}{connections}{lost}."


def _explanation(question: Question, found: Sequence[Prediction]) -> Iterator[str]:
    servers, holds = question.arrangement.servers, question.workload.holds
    yield (f"Formulas, for each server alone: {question.rate_per_s / servers:.4g} requests/s, holds of {holds.mean:.3g} ms with "
           f"a variation (variance / mean^2) of {variation(holds):.2g}, waits in ms.")  # fmt: skip
    yield "M/M/c: Erlang's C. G/G/c: Allen and Cunneen (M/G/c: Lee and Longton). Lost: Barrer's timeout or the full queue, the"
    yield "greater of both; at least 1 - 1/load."
    yield ""
    rows = [_formula_row(each, each.formulas) for each in found if each.formulas is not None]
    yield from _columns(_FORMULA_HEADINGS, rows)
    reasons = [f"size {each.size}: {reason}" for each in found for reason in partings(question, each)]
    yield ""
    yield "Where they part:" if reasons else "They part nowhere by more than 10% or 0.5 ms."
    yield from (f"- {reason}" for reason in reasons)


def _formula_row(found: Prediction, said: Formulas) -> tuple[str, ...]:
    return (
        *(str(found.size), f"{said.load:.0%}"),
        *(_ms(said.mmc_mean_ms), _ms(said.ggc_mean_ms), _ms(found.wait_mean_ms)),
        *(_ms(said.mmc_p50_ms), _ms(said.ggc_p50_ms), _ms(found.wait_p50_ms)),
        *(_ms(said.mmc_p99_ms), _ms(said.ggc_p99_ms), _ms(found.wait_p99_ms)),
        *(_share(max(said.timed_out, said.shed)), _share(said.lost), _share(found.lost)),
    )


def _columns(headings: Sequence[str], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    """Aligned to the right; columns with nothing in them are left out."""
    lines = list(rows)
    kept = [i for i, _ in enumerate(headings) if any(line[i] for line in lines)]
    widths = [max(len(line[i]) for line in (headings, *lines)) for i in kept]
    for line in (headings, *lines):
        yield "  ".join(line[i].rjust(width) for i, width in zip(kept, widths, strict=True))


def _ms(value_ms: float | None) -> str:
    return (
        "-"
        if value_ms is None or not isfinite(value_ms)
        else f"{value_ms:.2f}"
        if value_ms < 100
        else f"{value_ms:.0f}"
    )


def _share(share: float) -> str:
    return "0%" if not share else f"{share:.2%}"
