"""What the sources claim, and by which criterion a measurement bears it out. Written down before anything is measured.

A claim of a ratio is reproduced within a factor of 1.5 either way of the published one, and partly reproduced when at least
the direction is right by a factor of 1.2; other claims state their own criterion. Nothing here knows how to measure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite

from loadgen.lab.evidence import Evidence, ExperimentResult

REPRODUCED, PARTLY, NOT, UNMEASURED = "reproduced", "partly", "not reproduced", "not measured"

_SAME_WITHIN = 1.5
_SAME_DIRECTION = 1.2


@dataclass(frozen=True, slots=True)
class Finding:
    """What was measured, the verdict, and why in a few words."""

    measured: str
    verdict: str
    why: str


@dataclass(frozen=True, slots=True)
class Claim:
    """One claim of a source. `criterion` describes in words what `judge` decides by."""

    id: str
    source: str
    text: str
    published: str
    criterion: str
    needs: tuple[str, ...]
    """Experiments without which there is nothing to judge; "memory" and "restart" for those measurements."""
    judge: Callable[[Evidence], Finding]

    def finding(self, evidence: Evidence) -> Finding:
        """Judges the claim. The verdict is "not measured" where an experiment it needs was not run to its end."""
        missing = [need for need in self.needs if not _has(evidence, need)]
        return Finding("-", UNMEASURED, f"without {', '.join(missing)}") if missing else self.judge(evidence)


def _has(evidence: Evidence, need: str) -> bool:
    if need in ("memory", "restart"):
        return getattr(evidence, need) is not None
    return need in evidence.outcomes and not evidence.outcomes[need].partial


def _percent(share: float) -> str:
    return f"{share:.0%}" if share == 0 or share >= 0.095 else f"{share:.2%}"


def _judge_refusals(evidence: Evidence) -> Finding:
    one, many = evidence.outcomes["B.1.c1"], evidence.outcomes["B.1.c100"]
    measured = (
        f"{_percent(one.failed_share)} of requests failed with 1 user, {_percent(many.failed_share)} with 100; "
        f"53300: {one.failures.too_many_clients} and {many.failures.too_many_clients} times; "
        f"at most {max(one.peak_backends, many.peak_backends)} backends"
    )
    refused = many.failures.too_many_clients
    if refused and many.failed_share >= 0.3:
        verdict = REPRODUCED
    elif refused or one.failures.too_many_clients:
        verdict = PARTLY
    else:
        verdict = NOT
    if one.failed_share < 0.01:
        why = "1 user cannot hold 97 connections if each is closed; 63 % needs connections that are opened and never closed"
    else:
        why = "the slots of max_connections ran out"
    if verdict != REPRODUCED:
        why = (
            "one server opens some hundred connections a second and closes each: the sum open at once rarely passes "
            "max_connections; " + why
        )
    return Finding(measured, verdict, why)


def _judge_trade(evidence: Evidence) -> Finding:
    pairs = [(evidence.outcomes[f"B.1.{c}"], evidence.outcomes[f"B.2.{c}"]) for c in ("c1", "c100")]
    measured = "; ".join(
        f"{old.experiment.users} user{'s' * (old.experiment.users > 1)}: failures {_percent(old.failed_share)} -> "
        f"{_percent(new.failed_share)}, requests/s {_rps(old):.0f} -> {_rps(new):.0f}"
        for old, new in pairs
    )
    slower = all(_rps(new) < _rps(old) for old, new in pairs)
    failed_before = any(old.failed_share > 0.01 for old, _ in pairs)
    fewer = all(new.failed_share <= old.failed_share for old, new in pairs) and failed_before
    if slower and fewer:
        return Finding(measured, REPRODUCED, "slower and with fewer failures")
    if slower:
        why = (
            "slower, but there were no failures to trade away" if not failed_before else "slower, and it fails as well"
        )
        return Finding(measured, PARTLY, why)
    return Finding(measured, PARTLY if fewer else NOT, "not slower here")


def _judge_no_failures(evidence: Evidence) -> Finding:
    runs = [evidence.outcomes["B.3.c1"], evidence.outcomes["B.3.c100"]]
    failed = sum(round(run.failed_share * run.requests) for run in runs)
    measured = f"{failed} of {sum(run.requests for run in runs)} requests failed"
    return Finding(measured, REPRODUCED if not failed else NOT, "no request had to wait longer than the pool timeout"
                   if not failed else "see the failures by kind")  # fmt: skip


def _ratio_claim(
    claim_id: str, text: str, new: str, old: str, published: float, explain: Callable[[float], str]
) -> Claim:
    def judge(evidence: Evidence) -> Finding:
        slow, fast = _rps(evidence.outcomes[old]), _rps(evidence.outcomes[new])
        ratio = fast / slow if slow else float("inf")
        measured = (
            f"{ratio:.1f}x ({fast:.0f} against {slow:.0f} requests/s)" if isfinite(ratio) else "no request served"
        )
        if published / _SAME_WITHIN <= ratio <= published * _SAME_WITHIN:
            return Finding(measured, REPRODUCED, "within a factor of 1.5 of the published ratio")
        return Finding(measured, PARTLY if ratio >= _SAME_DIRECTION else NOT, explain(ratio))

    criterion = (
        f"reproduced within {_SAME_WITHIN} times either way of {published:g}x; partly from {_SAME_DIRECTION}x on"
    )
    return Claim(claim_id, "B", text, f"{published:g}x", criterion, (new, old), judge)


def _against_null(ratio: float) -> str:
    if ratio > 5:
        return "a larger gain: a SCRAM handshake on this machine costs more of a request than the rest of it"
    return "a smaller gain: the rest of a request weighs more here"


def _against_per_request(ratio: float) -> str:
    if ratio > 14:
        return "a larger gain: five SCRAM handshakes for each request"
    return "a smaller gain: the five connections are opened at once here"


def _judge_concurrency(evidence: Evidence) -> Finding:
    run = evidence.outcomes["A.pool10"]
    followed, recorded = run.answers(301), run.clicks_recorded or 0
    unanswered = run.requests - run.responses
    measured = f"{followed} answers 301, {recorded} clicks recorded, {unanswered} requests without an answer"
    if recorded == followed:
        return Finding(measured, REPRODUCED, "no click lost, none doubled")
    if followed < recorded <= followed + unanswered:
        return Finding(measured, REPRODUCED, "none lost; the surplus is of requests whose answer was not awaited")
    return Finding(measured, NOT, "clicks were lost" if recorded < followed else "clicks were doubled")


def _judge_forty(evidence: Evidence) -> Finding:
    run = evidence.outcomes["A.pool10"]
    total = run.report.aggregate
    created, completed = total.counters.get("vusers.created", 0), total.counters.get("vusers.completed", 0)
    times = total.summaries.get("http.response_time")
    p99 = times.p99 if times else None
    measured = f"{completed} of {created} users served, {_percent(run.failed_share)} failed, p99 {p99} ms, {_cpu(run)}"
    if created == completed and run.failed_share == 0:
        if p99 is not None and p99 <= 1000:
            return Finding(measured, REPRODUCED, "every user served, 99 in 100 within a second")
        return Finding(measured, PARTLY, "every user served, but with waits of more than a second")
    return Finding(measured, NOT, "not every user was served")


def _judge_nested(evidence: Evidence) -> Finding:
    plain, nested = (_mean_ms(evidence.outcomes[i]) for i in ("A.pool10", "A.analytics"))
    run = evidence.outcomes["A.analytics"]
    ratio = nested / plain if plain else float("inf")
    measured = f"mean {plain:.1f} -> {nested:.1f} ms, {ratio:.1f}x; {_cpu(run)}"
    saturated = _saturation(run)
    if ratio >= 2:
        return Finding(measured, REPRODUCED, saturated or "aggregating some hundred rows costs more than one look-up")
    verdict = PARTLY if ratio >= _SAME_DIRECTION else NOT
    return Finding(measured, verdict, saturated or "below saturation the statement's own time is small beside the rest")


def _judge_memory(evidence: Evidence) -> Finding:
    memory = evidence.memory
    assert memory is not None  # noqa: S101 - `needs` says so
    needed = memory.needed_mb(80)
    fits = int((512 - memory.shared_mb - memory.base_mb) / memory.per_backend_mb)
    measured = (
        f"{memory.per_backend_mb:.2f} MB a connection; 80 need {needed:.0f} MB with {memory.shared_mb:.0f} MB shared; "
        f"512 MB hold {fits}"
    )
    if needed > 512:
        return Finding(measured, REPRODUCED, "the sum passes 512 MB")
    return Finding(measured, NOT, "summed RSS counts shared buffers once for each backend; counted once, they fit")


def _judge_restart(evidence: Evidence) -> Finding:
    restart = evidence.restart
    assert restart is not None  # noqa: S101 - `needs` says so
    measured = "links and clicks before {}, after {}".format(
        *(f"{a} + {b}" for a, b in (restart.before, restart.after))
    )
    same = restart.before == restart.after and restart.before[0] > 0
    return Finding(measured, REPRODUCED if same else NOT, "every row was there again" if same else "rows are missing")


def _judge_limit(evidence: Evidence) -> Finding:
    runs = {size: evidence.outcomes.get(f"M.pool{size}") for size in (5, 10, 20, 40)}
    uses = {size: run.memory_use for size, run in runs.items() if run is not None and run.memory_use is not None}
    use = uses[20]
    if use.limit_mb is None:
        return Finding("-", UNMEASURED, "no limit of memory could be set here")
    held = [size for size, each in uses.items() if not each.oom_kills and each.answers_afterwards]
    failed = [f"{size} ({_percent(run.failed_share)} failed)" for size, run in runs.items() if run is not None]
    measured = (
        f"pools of {', '.join(failed)}; with 20 at most {use.peak_mb or 0:.0f} of {use.limit_mb:.0f} MB, cache included,"
        f" {use.connections} connections and {use.pss_mb:.0f} MB of PSS, limit met {use.limit_hits} times, {use.oom_kills} killed"
    )
    if 20 not in held:
        return Finding(measured, REPRODUCED, "the kernel killed a process of the database")
    why = f"nothing was killed with pools of {', '.join(str(size) for size in held)}"
    return Finding(measured, PARTLY if use.limit_hits else NOT, why)


def _rps(run: ExperimentResult) -> float:
    return (run.ab.requests_per_second or 0.0) if run.ab else run.responses / run.wall_s


def _mean_ms(run: ExperimentResult) -> float:
    times = run.report.aggregate.sketches.get("http.response_time")
    return times.mean if times else 0.0


def _cpu(run: ExperimentResult) -> str:
    servers = f"servers {run.servers_cpu_s / run.wall_s:.0%} of a core"
    if run.database_cpu_s is None:
        return servers
    return f"database {run.database_cpu_s / run.wall_s:.0%}, {servers}"


def _saturation(run: ExperimentResult) -> str | None:
    cores = run.report.extras.environment.get("cores", 1) if run.report.extras else 1
    generator = run.report.extras.generator.get("cpu_s", 0.0) if run.report.extras else 0.0
    used = (run.servers_cpu_s + (run.database_cpu_s or 0.0) + generator) / (run.wall_s * cores)
    return f"the machine was saturated ({used:.0%} of {cores} cores)" if used > 0.9 else None


CLAIMS: tuple[Claim, ...] = (
    Claim(
        "B.too-many-clients", "B", "opening a connection per request fails with 53300 under load",
        "63% failed with 1 user, 71% with 100",
        "reproduced if 53300 occurs and at least 30% fail with 100 users; partly if 53300 occurs at all",
        ("B.1.c1", "B.1.c100"), _judge_refusals,
    ),
    Claim(
        "B.pool-per-request", "B", "a pool per request trades failures for speed",
        "failures 63% -> 0% and 71% -> 6%; requests/s 44 -> 18 and 116 -> 20",
        "reproduced if it is slower and fails less than a connection per request, with 1 user and with 100",
        ("B.1.c1", "B.1.c100", "B.2.c1", "B.2.c100"), _judge_trade,
    ),
    Claim(
        "B.no-failures", "B", "one shared pool fails nothing", "0 failures of 20000",
        "reproduced if no request fails, with 1 user and with 100", ("B.3.c1", "B.3.c100"), _judge_no_failures,
    ),
    _ratio_claim("B.gain.c1", "one shared pool multiplies the throughput of a connection per request, 1 user",
                 "B.3.c1", "B.1.c1", 5.8, _against_null),
    _ratio_claim("B.gain.c100", "one shared pool multiplies the throughput of a connection per request, 100 users",
                 "B.3.c100", "B.1.c100", 4.0, _against_null),
    _ratio_claim("B.gain.pool", "one shared pool multiplies the throughput of a pool per request, 1 user",
                 "B.3.c1", "B.2.c1", 14.0, _against_per_request),
    Claim(
        "A.concurrency", "A", "the database takes care of concurrency: no click lost or doubled", "said, not measured",
        "reproduced if the clicks recorded equal the 301 answers (requests left unanswered may add to them)",
        ("A.pool10",), _judge_concurrency,
    ),
    Claim(
        "A.forty", "A", "4 x 10 connections hold 600 requests a second", "18000 of 18000 answered, p99 127.8 ms",
        "reproduced if every user is served without a failure and p99 is within a second; partly if p99 is beyond",
        ("A.pool10",), _judge_forty,
    ),
    Claim(
        "A.nested", "A", "the nested read costs a multiple of the plain one", "mean 12.3 -> 76.4 ms, 6.2x",
        "reproduced from 2x the mean response time on; partly from 1.2x", ("A.pool10", "A.analytics"), _judge_nested,
    ),
    Claim(
        "A.memory", "A", "pools of 20 on 4 servers need a memory that 512 MB does not give", "said, not measured",
        "reproduced if shared + base + 80 x the slope of summed PSS passes 512 MB", ("memory",), _judge_memory,
    ),
    Claim(
        "A.restart", "A", "links and clicks survive a restart of every server and of the database", "said",
        "reproduced if both row counts are the same after the restart", ("restart",), _judge_restart,
    ),
)  # fmt: skip
"""The claims of both sources, in the order in which they are shown."""

MORE_CLAIMS: tuple[Claim, ...] = (
    Claim(
        "M.twenty", "A", "a database in 512 MB does not hold the nested object's load with pools of 20 on 4 servers",
        "said, not measured",
        "reproduced if, under a real limit of 512 MB, the kernel kills a process of the database; partly if the limit is met,"
        " so that cache has to be given up, but nothing is killed", ("M.pool20",), _judge_limit,
    ),
)  # fmt: skip
"""Claims whose experiments run only when they are asked for by name."""


def claims_on(evidence: Evidence) -> tuple[Claim, ...]:
    """The claims of both sources, and those of groups that were run by name in this session."""
    return (*CLAIMS, *(claim for claim in MORE_CLAIMS if all(_has(evidence, need) for need in claim.needs)))
