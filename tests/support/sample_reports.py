"""Reports that look like real ones, small and always the same."""

from dataclasses import replace

import numpy as np

from reports import names
from reports.model import Extras, Period, Rate, Report, Second, Summary
from reports.sketch import Sketch

START_MS = 1_700_000_000_000
ENDPOINT_TIME = f"{names.ENDPOINT}.response_time."
EVIL = """</script><script>hacked=1</script><img src=x onerror=hacked=1><a href="javascript:hacked=1">'"<!--\u2028"""
SCRIPT = "config:\n  target: http://127.0.0.1:8000\n"


def seconds(start_ms, response, lost):
    """The answers' times dealt out over the ten seconds of a period, in turn; what was lost failed in the first second."""
    return tuple(
        Second(
            start_ms + i * 1000, len(part) + (lost if i == 0 else 0), len(part), lost if i == 0 else 0, Sketch.of(part)
        )
        for i, part in enumerate(np.array_split(response, 10))
        if len(part)
    )


def period(rng, number, slower=1.0, answers=500):
    """Ten seconds of a service that spends its time as Server-Timing says; one answer in 50 is a 503."""
    start = START_MS + number * 10_000
    pool, db = rng.exponential(1.5 * slower, answers), rng.lognormal(0.4, 0.5, answers)
    connect = np.where(rng.random(answers) < 0.02, 9.0, 0.0)
    total = pool + connect + db + 0.5
    response = total + rng.lognormal(-0.6, 0.6, answers)
    values = {
        names.RESPONSE_TIME: response,
        names.INTENDED: response + 0.4,
        names.START_LAG: rng.exponential(0.1, answers),
        "server.pool": pool,
        "server.connect": connect,
        "server.db": db,
        "server.total": total,
        f"{ENDPOINT_TIME}/links": response[: answers // 10],
        f"{ENDPOINT_TIME}/{{{{ code }}}}": response[answers // 10 :],
    }
    sketches = {name: Sketch.of(v) for name, v in values.items()}
    bad, lost = answers // 50, number % 2
    counters = {
        names.VUSERS_CREATED: answers + lost,
        names.VUSERS_COMPLETED: answers,
        names.VUSERS_FAILED: lost,
        f"{names.VUSERS_CREATED_BY_NAME}follow": answers - 50,
        f"{names.VUSERS_CREATED_BY_NAME}create": 50 + lost,
        names.REQUESTS: answers + lost,
        names.RESPONSES: answers,
        f"{names.CODES}301": answers - bad,
        f"{names.CODES}503": bad,
        f"{names.ENDPOINT}./links.codes.201": answers // 10,
        f"{names.ENDPOINT}./{{{{ code }}}}.codes.503": bad,
        f"{names.ERRORS}ETIMEDOUT": lost,
    }
    at = start + 10, start + 9_990
    summaries = {name: Summary.of(s) for name, s in sketches.items()}
    rates = {names.REQUEST_RATE: Rate.of(answers, *at)}
    return Period(start, counters, rates, summaries, sketches, *at, *at, seconds(start, response, lost))


def report(seed=1, *, periods=6, slower=1.0, environment=None, warnings=()):
    rng = np.random.default_rng(seed)
    extras = Extras(
        tool_version="0.1.0",
        model="open",
        environment={"cpu": "a CPU", "cores": 2, "packages": {"gevent": "26"}, "script": SCRIPT, **(environment or {})},
        generator={"cpu_share": 0.25, "late_starts": 3},
        warnings=tuple(warnings),
    )
    return Report.of((period(rng, n, slower) for n in range(periods)), extras)


def scaled(found, factor):
    """The report with every time, and where that makes them more every count, as many times as large."""

    def times(sketch):
        return Sketch.of(np.linspace(sketch.min, sketch.max, 200) * factor)

    def one(part):
        sketches = {name: times(sketch) for name, sketch in part.sketches.items()}
        many = max(1, round(factor))
        return replace(
            part,
            counters={name: count * many for name, count in part.counters.items()},
            sketches=sketches,
            summaries={name: Summary.of(sketch) for name, sketch in sketches.items()},
            seconds=tuple(
                replace(s, requests=s.requests * many, answers=s.answers * many, response_time=times(s.response_time))
                for s in part.seconds
            ),
        )

    return Report.of(map(one, found.periods), found.extras)


def sample_report() -> Report:
    """One period with every kind of metric, ours among them."""
    times, lag = Sketch.of([1.25, 303.4, 4.6, 0]), Sketch.of([0.12])
    period = Period(
        start_ms=1_700_000_000_000,
        counters={"vusers.created": 4, "http.codes.200": 4, "loadgen.late": 1},
        rates={"http.request_rate": Rate.of(4, 1_700_000_001_000, 1_700_000_003_500)},
        summaries={"http.response_time": Summary.of(times), "loadgen.start_lag": Summary.of(lag)},
        sketches={"http.response_time": times, "loadgen.start_lag": lag},
        first_counter_ms=1_700_000_001_000,
        last_counter_ms=1_700_000_003_500,
        first_histogram_ms=1_700_000_001_010,
        last_histogram_ms=1_700_000_003_900,
        seconds=(Second(1_700_000_001_000, requests=4), Second(1_700_000_003_000, 0, 4, 1, times)),
    )
    extras = Extras("0.1.0", "open", environment={"cpus": 2}, generator={"cpu_share": 0.25}, warnings=("one warning",))
    return Report.of([period], extras)
