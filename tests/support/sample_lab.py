"""Results of the lab that look like real ones."""

from loadgen.lab.evidence import Evidence, ExperimentResult, Failures, Fairness, Memory, Restart
from loadgen.lab.experiments import experiments
from reports.formats.apachebench import AbFailures, AbReport
from reports.model import Period, Report, Summary
from reports.sketch import Sketch

KNOWN = {e.id: e for e in experiments()}


def ab_outcome(key, rps, *, bad=0, refused=0, requests=1000):
    counters = {"http.requests": requests, "http.responses": requests, "http.codes.200": requests - bad}
    if bad:
        counters["http.codes.503"] = bad
    ab = AbReport(
        complete=requests, failed=bad, non_2xx=bad or None, requests_per_second=rps, time_per_request_all_ms=1000 / rps,
        failures=AbFailures(length=bad) if bad else None,
    )  # fmt: skip
    failures = Failures({"53300": refused} if refused else {})
    report = Report(Period(0, counters=counters))
    return ExperimentResult(KNOWN[key], report, ab, requests / rps, 10, 1.0, 1.0, failures)


def script_outcome(key, mean_ms, *, users=1000, completed=None, codes=None, clicks=900, p99=100.0, database_cpu_s=1.0):
    codes = codes if codes is not None else {301: 900, 200: 100}
    counters = {
        "vusers.created": users, "vusers.completed": users if completed is None else completed,
        "http.requests": users, "http.responses": sum(codes.values()),
        **{f"http.codes.{code}": n for code, n in codes.items()},
    }  # fmt: skip
    sketch = Sketch.of([mean_ms] * 10)
    total = Period(
        0,
        counters=counters,
        summaries={"http.response_time": Summary(p99=p99)},
        sketches={"http.response_time": sketch},
    )
    return ExperimentResult(
        KNOWN[key], Report(total), None, 10.0, 40, 1.0, database_cpu_s, Failures(), clicks_recorded=clicks
    )


def fairness_cell(strategy, users=20):
    report = Report(Period(0, sketches={"http.response_time": Sketch.of([5.0, 7.0, 90.0])}))
    return Fairness(
        strategy, users, report, 900.0, Sketch.of([6.0] * 99 + [95.0]), Sketch.of([1.0, 80.0]), (5,) * users
    )


def lab_evidence():
    """Every experiment of the sources, C.fairness, memory and the restart."""
    outcomes = [ab_outcome(e.id, 100 + i, bad=10 * (i < 2), refused=10 * (i < 2)) for i, e in enumerate(KNOWN.values())
                if not e.script]  # fmt: skip
    outcomes += [script_outcome(e.id, 10) for e in KNOWN.values() if e.script]
    return Evidence(
        {o.experiment.id: o for o in outcomes},
        Memory(1.5, 150, 11, (10, 50)),
        Restart((200, 3229), (200, 3229)),
        {"cpu": "a CPU", "cores": 2, "memory_mb": 100, "system": "Linux", "python": "3"},
        ("a note",),
        (fairness_cell("queue"), fairness_cell("fair")),
    )
