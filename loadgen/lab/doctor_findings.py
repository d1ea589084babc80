"""A diagnosis as blocks: what holds the application back first, then what was found well. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from poolbench.diagnosis_case import LEAST_SHARE
from poolbench.findings import Diagnosis, Finding
from reports.answers import failed_share
from reports.blocks import (
    Block,
    Cell,
    Code,
    Column,
    Facts,
    Items,
    Page,
    Section,
    Table,
    Text,
    Tone,
    amount,
    decimal,
    number,
    percent,
    share_cell,
)
from reports.model import Report
from reports.names import REQUESTS, RESPONSE_TIME

_NAMES = {
    "leak": "connections that are not given back",
    "nested-checkout": "a second connection asked for while one is held",
    "fork-shared": "a connection shared by two processes",
    "pool-per-request": "a pool made for each request",
    "connection-per-request": "a connection opened for each request",
    "idle-in-transaction": "a transaction left open",
    "work-while-holding": "other work while a connection is held",
    "n-plus-one": "the same statement again and again",
    "slow-statement": "a slow statement",
    "starvation": "a pool that serves out of order",
    "pool-too-small": "too few connections",
    "pool-too-large": "too many connections",
}

_SHARES = {"fork-shared": "all loans", "pool-too-large": "the connections asked for"}
"""What the shares of these kinds are parts of; those of the others are of all requests' time."""

_MANY_FAILED = 0.05
"""The share of failed requests from which on they are mentioned before the findings."""


def doctor_page(
    given: Mapping[str, Any],
    diagnosis: Diagnosis,
    report: Report,
    notes: Sequence[str],
    code: Mapping[str, str],
    *,
    partial: bool,
    lost: int = 0,
) -> Page:
    """The diagnosis of an application. `given` says what was run, `code` what stands at each `file:line` that is known; `partial`
    and `lost` as for `reasons_to_doubt`.
    """
    doubts = list(reasons_to_doubt(report, lost, partial=partial))
    return Page(
        _title(given["application"], diagnosis),
        f"What holds the connections of {given['application']} back, under {given['script']} for {decimal(given['seconds'])} s",
        tuple(_sections(given, diagnosis, report, notes, code, doubts)),
        {
            "findings": [finding.to_json() for finding in diagnosis.findings],
            "checked": list(diagnosis.checked),
            "notes": [*doubts, *diagnosis.notes, *notes],
            "partial": partial,
            "given": dict(given),
        },
    )


def _sections(
    given: Mapping[str, Any],
    diagnosis: Diagnosis,
    report: Report,
    notes: Sequence[str],
    code: Mapping[str, str],
    doubts: Sequence[str],
) -> Iterator[Section]:
    yield Section("diagnosis", "Diagnosis", tuple(_answer(diagnosis, doubts)), menu="Diagnosis")
    for index, finding in enumerate(diagnosis.findings):
        yield Section(
            f"finding-{index + 1}", f"{index + 1}. {heading(finding)}", tuple(_details(finding, code)), level=3
        )
    yield Section("looked-for", "Looked for, and not found", tuple(_well(diagnosis.checked)), menu="Looked for")
    yield Section(
        "run",
        "The run",
        tuple(_run(given, report, [*(diagnosis.notes if diagnosis.findings else ()), *notes])),
        menu="The run",
    )


def heading(finding: Finding) -> str:
    """A finding in a few words, with its kind and place."""
    where = f" at {finding.where}" if finding.where else ""
    return f"{_NAMES[finding.kind].capitalize()}{where} ({finding.kind})"


def _title(application: str, diagnosis: Diagnosis) -> str:
    """The answer, in a sentence without its full stop: the first finding, or that there is none."""
    if not diagnosis.findings and diagnosis.is_crowded_out:
        return f"The pools of {application} cannot be judged: other programs kept the machine busy"
    if not diagnosis.findings:
        return f"Nothing was found that holds connections of {application} back"
    first = diagnosis.findings[0]
    at = f" at {first.where}" if first.where else ""
    by = f", in {first.endpoint}" if first.endpoint else ""
    return f"{_NAMES[first.kind].capitalize()}{at}{by}"


def reasons_to_doubt(report: Report, lost: int, *, partial: bool) -> Iterator[str]:
    """Why a diagnosis may not be the whole truth, a sentence or two each.

    lost: the number of processes that ended without saying what they saw. partial: a signal ended the run.
    """
    if partial:
        yield "The run was interrupted: the diagnosis is of the part before."
    if lost:
        processes = "A process" if lost == 1 else f"{lost} processes"
        yield (
            f"{processes} of the application ended during the load, as after a crash, and what happened there is not in the"
            " diagnosis. logs/doctor.log, in the folder of this run, may say why."
        )
    failed = failed_share(report.aggregate.counters)
    if failed >= _MANY_FAILED:
        yield (
            f"{percent(failed)} of the requests got no good answer (2xx or 3xx), so they may have done less than usual. What the"
            " servers said is in logs/doctor.log, in the folder of this run."
        )


def _answer(diagnosis: Diagnosis, doubts: Sequence[str]) -> Iterator[Block]:
    told = [Text(doubt, "warn") for doubt in doubts]
    if not diagnosis.findings:
        tone: Tone = "warn" if diagnosis.is_crowded_out or doubts else "good"
        yield Text("Nothing was found that holds connections back.", tone)
        yield from told
        # What the application is slow for then, such as the CPU of its workers.
        if diagnosis.notes:
            yield Items(tuple(map(Text, diagnosis.notes)))
        return
    first = diagnosis.findings[0]
    yield Text(f"This {_costs(first)}.", "bad")
    yield from told
    if len(diagnosis.findings) > 1:
        yield Table(
            "findings",
            "Findings, the most important first",
            (Column("what"), Column("share", "number"), Column("where"), Column("endpoint")),
            tuple(
                (
                    Cell(each.kind),
                    share_cell(each.share),
                    Cell(each.where or "–"),
                    Cell(each.endpoint or "–"),
                )
                for each in diagnosis.findings
            ),
        )


def _details(finding: Finding, code: Mapping[str, str]) -> Iterator[Block]:
    if finding.where is not None and finding.where in code:
        yield Code(f"The code at {finding.where}", code[finding.where])
    yield Text(f"{f'In {finding.endpoint}. ' if finding.endpoint else ''}{finding.evidence}")
    yield Text(f"Cure: {finding.advice}")
    yield Text(f"It {_costs(finding)}.")


def _costs(finding: Finding) -> str:
    """A finding's share, with what it is a part of. What is wrong in itself has the least share, whatever it costs."""
    whole = _SHARES.get(finding.kind, "the requests' time")
    at_most = " or less" if finding.share <= LEAST_SHARE else ""
    return f"{'affects' if finding.kind in _SHARES else 'costs'} {percent(finding.share)} of {whole}{at_most}"


def _well(checked: Sequence[str]) -> Iterator[Block]:
    if checked:
        yield Items(tuple(Text(f"{_NAMES[kind]} ({kind})") for kind in checked))
    else:
        yield Text("Nothing: all kinds were found.")


def _run(given: Mapping[str, Any], report: Report, notes: Sequence[str]) -> Iterator[Block]:
    total = report.aggregate
    times = total.summaries.get(RESPONSE_TIME)
    yield Facts(
        "What was run",
        (
            ("Server processes", str(given["servers"])),
            ("Requests", number(total.counters.get(REQUESTS, 0))),
            ("Failed", percent(failed_share(total.counters))),
            ("Response time, p50 / p99", f"{amount(times.p50)} / {amount(times.p99)} ms" if times else "–"),
        ),
    )
    if notes:
        yield Items(tuple(Text(note) for note in notes))
