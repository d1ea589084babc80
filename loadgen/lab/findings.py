"""The lab's findings as Markdown and as JSON: each report beside the published one, then claim by claim. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from loadgen.lab import distance_findings as distance_summary
from loadgen.lab import groups
from loadgen.lab.claims import UNMEASURED, claims_on
from loadgen.lab.evidence import Evidence, ExperimentResult
from reports.formats import published
from reports.formats.apachebench import AbReport
from reports.formats.markdown import table

_SUMMARY_ROWS = ("min", "max", "mean", "median", "p95", "p99")
_FIGURES = (
    ("Time taken for tests (s)", "time_taken_s"),
    ("Complete requests", "complete"),
    ("Failed requests", "failed"),
    ("Non-2xx responses", "non_2xx"),
    ("Total transferred (bytes)", "total_bytes"),
    ("HTML transferred (bytes)", "html_bytes"),
    ("Requests per second", "requests_per_second"),
    ("Time per request (ms)", "time_per_request_ms"),
    ("Time per request, across all (ms)", "time_per_request_all_ms"),
    ("Transfer rate (KB/s)", "transfer_rate_kbytes_s"),
)
_GAIN_TITLES = {
    "processed": "requests without a failure, of 10000",
    "rps": "requests per second",
    "time_per_request_ms": "time per request, across all (ms)",
}

Comparison = tuple[str, float | None, float | None]
"""Label, published figure, measured figure."""


def to_markdown(evidence: Evidence) -> str:
    """The whole summary."""
    parts = ["# Two published experiments, run again\n"]
    if evidence.partial:
        parts.append("**Partial: the run was interrupted. What follows was measured until then.**\n")
    parts.append(_machine(evidence))
    if evidence.outcomes:
        parts += ["## Claims\n", _claims(evidence), "## Seen from outside\n", _seen(evidence)]
    for outcome in evidence.outcomes.values():
        parts += [f"## {outcome.experiment.id}: {outcome.experiment.title}\n", _one(outcome)]
    if evidence.fairness:
        parts += ["## C.fairness: 10 connections, a query of 5 ms, more users than connections\n", _fairness(evidence)]
    if evidence.distance and evidence.crossing:
        parts += [f"## {distance_summary.TITLE}\n", distance_summary.to_markdown(evidence.crossing, evidence.distance)]
    if of_p := groups.pgbouncer_rows(evidence):
        parts += [f"## {groups.PGBOUNCER_TITLE}\n", _rows(of_p), groups.PGBOUNCER_NOTE + "\n"]
    if of_m := groups.memory_rows(evidence):
        parts += [f"## {groups.MEMORY_TITLE}\n", _rows(of_m), groups.memory_note(evidence) + "\n"]
    gains = list(gain_rows(evidence))
    if gains:
        parts += ["## Source B's table of gains, recomputed\n", _gains(gains)]
    if evidence.memory:
        parts += ["## Memory of the backends\n", _memory(evidence)]
    return "\n".join(parts)


def to_document(evidence: Evidence) -> dict[str, Any]:
    """The same as plain values for JSON."""
    return {
        "partial": evidence.partial,
        "notes": list(evidence.notes),
        "claims": [
            {"id": c.id, "source": c.source, "claim": c.text, "published": c.published, "criterion": c.criterion,
             "measured": f.measured, "verdict": f.verdict, "why": f.why}
            for c in claims_on(evidence)
            for f in (c.finding(evidence),)
        ],
        "experiments": {key: _document_of(outcome) for key, outcome in evidence.outcomes.items()},
        "gains": [
            {"users": g, "figure": figure, "published": list(old), "printed": printed, "measured": list(new)}
            for g, figure, old, printed, new in gain_rows(evidence)
        ],
        "fairness": [
            {"users": c.users, "strategy": c.strategy, "requests_per_second": c.requests_per_second,
             "p50_ms": c.total_ms.quantile(0.5), "p99_ms": c.total_ms.quantile(0.99), "max_ms": c.total_ms.max,
             "wait_p50_ms": c.wait_ms.quantile(0.5), "wait_p99_ms": c.wait_ms.quantile(0.99), "wait_max_ms": c.wait_ms.max,
             "jain": c.jain, "unserved": c.unserved}
            for c in evidence.fairness
        ],
        "distance": None if evidence.crossing is None else distance_summary.to_document(evidence.crossing, evidence.distance),
        "groups": [
            {"title": title, "rows": [dict(row) for row in rows], "note": note}
            for title, rows, note in (
                (groups.PGBOUNCER_TITLE, groups.pgbouncer_rows(evidence), groups.PGBOUNCER_NOTE),
                (groups.MEMORY_TITLE, groups.memory_rows(evidence), groups.memory_note(evidence)),
            )
            if rows
        ],
        "memory": None if evidence.memory is None else {
            "per_backend_mb": evidence.memory.per_backend_mb,
            "shared_mb": evidence.memory.shared_mb,
            "base_mb": evidence.memory.base_mb,
            "counts": list(evidence.memory.counts),
        },
        "restart": None if evidence.restart is None else {
            "before": list(evidence.restart.before),
            "after": list(evidence.restart.after),
        },
    }  # fmt: skip


def claim_lines(evidence: Evidence) -> Iterator[str]:
    """One line for each claim that could be judged, for a terminal, and how many could not."""
    unmeasured = 0
    for claim in claims_on(evidence):
        found = claim.finding(evidence)
        if found.verdict == UNMEASURED:
            unmeasured += 1
            continue
        yield f"{found.verdict:<14}  {claim.text}. Published: {claim.published}. Here: {found.measured}. ({found.why})"
    if unmeasured:
        yield f"{UNMEASURED:<14}  {unmeasured} claims whose experiments were not run to their end"


def comparisons(outcome: ExperimentResult) -> list[Comparison]:
    """The measured report beside the published one, label by label; figures that a side lacks are None."""
    key = outcome.experiment.published
    known = published.experiments().get(key) if key else None
    if outcome.ab is not None:
        return _ab_rows(known.ab if known else None, outcome.ab)
    return _artillery_rows(known, outcome)


def gain_rows(evidence: Evidence) -> Iterator[tuple[str, str, tuple[float, float], str, tuple[float, float]]]:
    """(users, figure, published old and new, as printed, measured old and new) where both experiments were run."""
    for gain in published.gains():
        users = "c1" if gain.group == "single" else "c100"
        old, new = evidence.outcomes.get(f"B.1.{users}"), evidence.outcomes.get(f"B.3.{users}")
        if old is not None and new is not None and old.ab is not None and new.ab is not None:
            figures = _gain_figure(old.ab, gain.figure), _gain_figure(new.ab, gain.figure)
            yield gain.group, gain.figure, (gain.old, gain.new), gain.printed, figures


def _gain_figure(report: AbReport, figure: str) -> float:
    if (
        figure == "processed"
    ):  # for 10,000 requests, however many were made; a failure is an answer other than 2xx, or none
        broken = report.failures.total - report.failures.length if report.failures else 0
        bad = (report.non_2xx or 0) + broken
        return round(10_000 * (1 - bad / report.complete)) if report.complete else 0.0
    return (report.requests_per_second if figure == "rps" else report.time_per_request_all_ms) or 0.0


def _ab_rows(old: AbReport | None, new: AbReport) -> list[Comparison]:
    rows: list[Comparison] = [
        (label, getattr(old, key) if old else None, getattr(new, key)) for label, key in _FIGURES
    ]  # fmt: skip
    if new.non_2xx is None:
        rows = [(label, was, 0 if label.startswith("Non-2xx") else now) for label, was, now in rows]
    for name, row in new.rows.items():
        was = old.rows.get(name) if old else None
        for key in ("min", "mean", "sd", "median", "max"):
            label = f"{name.capitalize()}, {'[+/-sd]' if key == 'sd' else key} (ms)"
            rows.append((label, getattr(was, key) if was else None, getattr(row, key)))
    for percent, value in new.percentiles.items():
        rows.append((f"{percent}% within (ms)", old.percentiles.get(percent) if old else None, value))
    return rows


def _artillery_rows(known: published.PublishedExperiment | None, outcome: ExperimentResult) -> list[Comparison]:
    total = outcome.report.aggregate
    was = known.report.aggregate if known else None
    names = sorted({*total.counters, *(was.counters if was else {})})
    shown = [
        n for n in names if n.startswith(("http.codes", "http.downloaded", "errors.", "vusers.")) and "by_name" not in n
    ]
    rows: list[Comparison] = [(n, was.counters.get(n) if was else None, total.counters.get(n)) for n in shown]
    old, new = was.summaries.get("http.response_time") if was else None, total.summaries.get("http.response_time")
    for key in _SUMMARY_ROWS:
        pair = (getattr(old, key) if old else None, getattr(new, key) if new else None)
        rows.append((f"http.response_time, {key} (ms)", *pair))
    return rows


def _machine(evidence: Evidence) -> str:
    e = evidence.environment
    lines = [
        f"{e.get('cpu')}, {e.get('cores')} cores, {e.get('memory_mb')} MB, {e.get('system')}, Python {e.get('python')}"
    ]
    lines += [f"{e['postgres']}"] if e.get("postgres") else []
    return "".join(f"- {line}\n" for line in [*lines, *evidence.notes])


def _claims(evidence: Evidence) -> str:
    rows = []
    claims = claims_on(evidence)
    for claim in claims:
        found = claim.finding(evidence)
        rows.append((claim.text, claim.published, found.measured, found.verdict, found.why))
    criteria = "".join(f"- {claim.text}: {claim.criterion}.\n" for claim in claims)
    return (
        table(("claim", "published", "measured here", "verdict", "why"), rows)
        + f"\nCriteria, written down before anything was measured:\n\n{criteria}"
    )


def _seen(evidence: Evidence) -> str:
    rows = [
        (
            o.experiment.id,
            str(o.requests),
            f"{o.wall_s:.1f}",
            f"{o.failed_share:.2%}",
            f"{o.good_per_second:.0f}",
            str(o.peak_backends),
            "-" if o.database_cpu_s is None else f"{o.database_cpu_s / o.wall_s:.0%}",
            f"{o.servers_cpu_s / o.wall_s:.0%}",
            ", ".join(f"{kind}: {n}" for kind, n in sorted(o.failures.by_kind.items())) or "-",
        )
        for o in evidence.outcomes.values()
    ]
    headings = ("experiment", "requests", "seconds", "failed", "good/s", "backends at peak", "database CPU", "servers' CPU",
                "failures logged")  # fmt: skip
    text = table(headings, rows) + "\nCPU in per cent of one core. Failed: without a 2xx or 3xx answer.\n"
    example = next((o.failures.example for o in evidence.outcomes.values() if o.failures.example), None)
    return text + (f"\nA failure as the service logs it:\n\n```json\n{example}\n```\n" if example else "")


def _one(outcome: ExperimentResult) -> str:
    rows = [
        (label, _number(was), _number(now), f"{now / was:.2f}" if was and now is not None else "-")
        for label, was, now in comparisons(outcome)
    ]
    text = table(("", "published", "measured", "ratio"), rows)
    if outcome.ab is not None:
        text += (
            "\nFailed requests are counted as ab does: an answer not as long as the first one is a failure (Length).\n"
        )
    if outcome.unhonoured:
        text += f"\nSettings of the source that this strategy has no use for: {', '.join(outcome.unhonoured)}.\n"
    return text


def _fairness(evidence: Evidence) -> str:
    rows = [
        (
            f"{cell.users} users, {cell.strategy}",
            f"{cell.requests_per_second:.0f}",
            *(f"{cell.total_ms.quantile(q):.1f}" for q in (0.5, 0.99)),
            f"{cell.total_ms.max:.1f}",
            *(f"{cell.wait_ms.quantile(q):.1f}" for q in (0.5, 0.99)),
            f"{cell.wait_ms.max:.1f}",
            f"{cell.jain:.4f}",
            str(cell.unserved),
        )
        for cell in evidence.fairness
    ]
    headings = ("", "requests/s", "p50, ms", "p99, ms", "max, ms", "wait p50, ms", "wait p99, ms", "wait max, ms",
                "Jain's index", "users never served")  # fmt: skip
    return table(headings, rows) + (
        "\nBoth strategies took turns in one session, one server each. Times run from the start of a request to its last byte;"
        " waits are the server's own (Server-Timing). Jain's index is of the answers that each user got: 1 if all got the same"
        " number.\n"
    )


def _rows(rows: Sequence[groups.Row]) -> str:
    return table(
        tuple(rows[0]),
        [tuple("-" if v is None else v if isinstance(v, str) else f"{v:g}" for v in row.values()) for row in rows],
    )


def _gains(rows: Iterable[tuple[str, str, tuple[float, float], str, tuple[float, float]]]) -> str:
    cells = []
    for users, figure, (old, new), printed, (here_old, here_new) in rows:
        less = figure == "time_per_request_ms"
        cells.append((
            f"{users}: {_GAIN_TITLES[figure]}",
            f"{old:g} -> {new:g}",
            printed,
            _ratio(old, new, less=less),
            f"{here_old:.4g} -> {here_new:.4g}",
            _ratio(here_old, here_new, less=less),
        ))  # fmt: skip
    return (
        table(("users: figure", "published", "as the source prints it", "as a ratio", "measured", "as a ratio"), cells)
        + "\nThe source prints most of its ratios as percentages: +584.09% stands for 5.84 times as many, which is 484 % more."
        " A gain in time is the old time divided by the new.\n"
    )


def _ratio(old: float, new: float, *, less: bool) -> str:
    over, under = (old, new) if less else (new, old)
    return f"{over / under:.2f}x (+{(over / under - 1) * 100:.0f} %)" if under else "-"


def _memory(evidence: Evidence) -> str:
    memory = evidence.memory
    assert memory is not None  # noqa: S101 - the caller looked
    low, high = memory.counts
    rows = [(f"{n} connections", f"{memory.needed_mb(n):.0f}") for n in (40, 80, 100, 200)]
    return (
        f"One more connection, warm, costs {memory.per_backend_mb:.2f} MB: the slope of the summed proportional set size"
        f" between {low} and {high} connections, and 0.13 MB of page tables and kernel memory. Shared memory is"
        f" {memory.shared_mb:.0f} MB, the server's own processes {memory.base_mb:.1f} MB.\n\n"
        + table(("", "needed, MB"), rows)
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}".rstrip("0").rstrip(".")


def _document_of(outcome: ExperimentResult) -> dict[str, Any]:
    return {
        "title": outcome.experiment.title,
        "strategy": outcome.experiment.strategy,
        "servers": outcome.experiment.servers,
        "settings": dict(outcome.experiment.settings),
        "settings_without_effect": list(outcome.unhonoured),
        "partial": outcome.partial,
        "requests": outcome.requests,
        "seconds": round(outcome.wall_s, 3),
        "failed_share": outcome.failed_share,
        "good_per_second": outcome.good_per_second,
        "peak_backends": outcome.peak_backends,
        "database_cpu_s": outcome.database_cpu_s,
        "servers_cpu_s": outcome.servers_cpu_s,
        "failures": dict(outcome.failures.by_kind),
        "clicks_recorded": outcome.clicks_recorded,
        "pgbouncer_cpu_s": outcome.pgbouncer_cpu_s,
        "memory_use": None if outcome.memory_use is None else asdict(outcome.memory_use),
        "figures": [
            {"name": label, "published": was, "measured": now, "ratio": now / was if was and now is not None else None}
            for label, was, now in comparisons(outcome)
        ],
    }
