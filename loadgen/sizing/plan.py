"""`loadgen plan`: a measured report and an arrangement in, what each pool size would give out, without any load."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from math import inf, isfinite
from pathlib import Path
from typing import Any

import click

from loadgen.sizing.measured import Workload, variation, workload
from loadgen.sizing.predict import Formulas, Prediction, Question, doubts, partings, predict
from loadgen.sizing.simulate import Arrangement
from reports.cli import BadInput
from reports.files import WriteError, check_writable, write_text
from reports.model import ReportError
from reports.read import load

_VARIATIONS = {"poisson": 1.0, "uniform": 0.0}
_MOST_SIZES = 50
_LARGEST = 10_000


def plan(report: str, sizes: str, explain: bool, style: str | None, output: str | None, given: dict[str, Any]) -> None:
    """Carry out the command. Raises BadInput, and writes nothing then."""
    try:
        if output is not None:
            check_writable(Path(output))
        measured = workload(load(report, lambda note: click.echo(note, err=True)))
        question = _question(measured, _sizes(sizes), given)
        found = list(predict(question))
        as_json = style == "json" or (style is None and output is not None and output.endswith(".json"))
        text = to_json(question, found) if as_json else to_text(question, found, report, explain=explain)
        if output is None:
            click.echo(text, nl=False)
        else:
            write_text(output, text)
    except ReportError as error:
        raise BadInput(str(error) if str(error).startswith(report) else f"{report}: {error}") from None
    except WriteError as error:
        raise BadInput(str(error)) from None
    for doubt in doubts(question):
        click.echo(f"Warning: {doubt}", err=True)


def _sizes(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    wrong = next((part for part in parts if not part.isdecimal() or int(part) > _LARGEST), None)
    if wrong is not None or not 0 < len(parts) <= _MOST_SIZES:
        raise BadInput(f"--sizes {text}: up to {_MOST_SIZES} whole numbers from 0 to {_LARGEST}, with commas between them")
    return tuple(sorted({int(part) for part in parts}))


def _question(measured: Workload, sizes: tuple[int, ...], given: dict[str, Any]) -> Question:
    cpu_ms, connect_ms, wake_ms = given["db_cpu_ms"], given["connect_ms"], given["wake_ms"]
    if cpu_ms is not None and given["db_cores"] is None:
        raise BadInput("--db-cpu-ms has no effect without --db-cores")
    if 0 in sizes and given["max_overflow"] == 0:
        raise BadInput("--sizes 0 with --max-overflow 0: no connection could ever be lent")
    arrangement = Arrangement(
        servers=given["servers"],
        size=max(sizes),
        max_overflow=given["max_overflow"],
        timeout_s=given["timeout"],
        max_waiting=given["max_waiting"],
        hand_over=given["hand_over"],
        wake_s=measured.own_s if wake_ms is None else wake_ms / 1000,
        db_cores=given["db_cores"] or inf,
        db_share=1.0 if cpu_ms is None else min(1.0, cpu_ms / measured.holds.mean),
        cold=given["cold"],
    )
    return Question(
        workload=measured,
        arrangement=arrangement,
        sizes=sizes,
        rate_per_s=given["rate"] or measured.rate_per_s,
        arrival_variation=_VARIATIONS.get(given["arrivals"], measured.arrival_variation),
        connect_s=None if connect_ms is None else connect_ms / 1000,
        requests=given["requests"],
        seed=given["seed"],
    )


# What is written


def to_text(question: Question, found: Sequence[Prediction], name: str, *, explain: bool = False) -> str:
    """A table of the sizes below what it was made from; with `explain` the formulas after it."""
    blocks = [*_premises(question, name), "", *_columns(_HEADINGS, map(_row, found))]
    if explain:
        blocks += ["", *_explanation(question, found)]
    return "\n".join(blocks) + "\n"


def to_json(question: Question, found: Sequence[Prediction]) -> str:
    """The same as data: `workload`, `arrangement`, `sizes` (each with its `formulas`), `warnings`. No number: null."""
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
    yield (f"Measured in {name}: {measured.rate_per_s:.4g} loans/s, held for {measured.holds.mean:.3g} ms (p99 "
           f"{measured.holds.quantile(0.99):.3g} ms), {connecting}.")  # fmt: skip
    law = {1.0: "Poisson", 0.0: "uniform"}.get(question.arrival_variation, f"variation {question.arrival_variation:.2g}")
    most = arrangement.max_waiting
    queue = "no limit" if arrangement.hand_over == "barging" else "10 x size" if most is None else f"{most}"
    yield (f"Simulated: {question.rate_per_s:.4g} requests/s ({law}) at {arrangement.servers} servers, {arrangement.hand_over} "
           f"hand-over, timeout {arrangement.timeout_s:g} s, waiting at most: {queue}; {question.requests} requests for each "
           f"size, seed {question.seed}.")  # fmt: skip
    if arrangement.db_cores < inf:
        yield (f"The database has {arrangement.db_cores:g} cores; a hold needs one for {arrangement.db_share:.0%} of its "
               "time.")  # fmt: skip


_HEADINGS = ("size", "connections", "wait p50 ms", "wait p99 ms", "timed out", "shed", "in use", "served/s", "hold ms", "db cores")


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
        "" if found.db_busy is None else f"{found.db_busy:.0%}",
    )


_FORMULA_HEADINGS = ("size", "load", "mean: M/M/c", "G/G/c", "simulated", "p50: M/M/c", "G/G/c", "simulated", "p99: M/M/c", "G/G/c",
                     "simulated", "lost: M/M/c", "least", "simulated")  # fmt: skip


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
    yield "Where they part:" if reasons else "They part nowhere by more than 10 % or 0.5 ms."
    yield from (f"- {reason}" for reason in reasons)


def _formula_row(found: Prediction, said: Formulas) -> tuple[str, ...]:
    return (
        *(str(found.size), f"{said.load:.0%}"),
        *(_ms(said.mmc_mean_ms), _ms(said.ggc_mean_ms), _ms(found.wait_mean_ms)),
        *(_ms(said.mmc_p50_ms), _ms(said.ggc_p50_ms), _ms(found.wait_p50_ms)),
        *(_ms(said.mmc_p99_ms), _ms(said.ggc_p99_ms), _ms(found.wait_p99_ms)),
        *(_share(max(said.timed_out, said.shed)), _share(said.lost), _share(found.timed_out + found.shed)),
    )


def _columns(headings: Sequence[str], rows: Iterator[tuple[str, ...]] | Sequence[tuple[str, ...]]) -> Iterator[str]:
    """Aligned to the right; columns with nothing in them are left out."""
    lines = list(rows)
    kept = [i for i, _ in enumerate(headings) if any(line[i] for line in lines)]
    widths = [max(len(line[i]) for line in (headings, *lines)) for i in kept]
    for line in (headings, *lines):
        yield "  ".join(line[i].rjust(width) for i, width in zip(kept, widths, strict=True))


def _ms(value_ms: float | None) -> str:
    return "-" if value_ms is None or not isfinite(value_ms) else f"{value_ms:.2f}" if value_ms < 100 else f"{value_ms:.0f}"


def _share(share: float) -> str:
    return "0 %" if not share else f"{share * 100:.2f} %"
