"""What the sources claim, and by which criterion a measurement bears it out. Written down before anything is measured.

A claim of a ratio is reproduced within a factor of 1.5 either way of the published one, and partly reproduced when at least
the direction is right by a factor of 1.2; other claims state their own criterion. A claim whose essence is turned round is
not reproduced, and nothing about speed or failures is judged on a busy machine. Where experiments were run in rounds, each round
is judged by itself, and a claim on which rounds disagree is not judged. Nothing here knows how to measure.
"""

from __future__ import annotations

from collections import Counter

from loadgen.lab.claim import NOT, NOT_JUDGED, PARTLY, REPRODUCED, UNMEASURED, Claim, Finding, has
from loadgen.lab.evidence import Evidence, ExperimentResult
from loadgen.lab.publication_claims import publication_claims
from reports import names
from reports.blocks import ABSENT, amount, decimal, percent

_SAME_WITHIN = 1.5
_SAME_DIRECTION = 1.2
# Differences in the share of failed requests up to this are taken for none.
_NO_FAILURES = 0.01
_MULTIPLE = (2.0, 20.0)


def _judge_refusals(evidence: Evidence) -> Finding:
    one, many = evidence.outcomes["B.1.c1"], evidence.outcomes["B.1.c100"]
    measured = (
        f"{percent(one.failed_share)} of requests failed with 1 user, {percent(many.failed_share)} with 100; "
        f"too many clients (SQLSTATE 53300): {one.failures.too_many_clients} and {many.failures.too_many_clients} times"
    )
    refused = many.failures.too_many_clients
    if many.requests and refused / many.requests >= 0.3:
        verdict = REPRODUCED
    elif refused or one.failures.too_many_clients:
        verdict = PARTLY
    else:
        verdict = NOT
    limit = f" of {evidence.connecting.max_connections}" if evidence.connecting else ""
    why = f"at most {one.peak_backends}{limit} connections were open at once with 1 user, {many.peak_backends} with 100"
    brief = f"{percent(_refused_share(one) or 0.0)} of 1 user, {percent(_refused_share(many) or 0.0)} of 100"
    return Finding(measured, verdict, why, brief)


def _refused_share(run: ExperimentResult) -> float | None:
    return run.failures.too_many_clients / run.requests if run.requests else None


def _trade_ratio(evidence: Evidence) -> float | None:
    rate = evidence.outcomes["B.1.c100"].requests_per_second
    return evidence.outcomes["B.2.c100"].requests_per_second / rate if rate else None


def _judge_trade(evidence: Evidence) -> Finding:
    pairs = [(evidence.outcomes[f"B.1.{c}"], evidence.outcomes[f"B.2.{c}"]) for c in ("c1", "c100")]
    measured = "; ".join(
        f"{_people(old.experiment.users)}: failures {percent(old.failed_share)} -> {percent(new.failed_share)}, "
        f"requests/s {old.requests_per_second:.0f} -> {new.requests_per_second:.0f}"
        for old, new in pairs
    )
    slower = all(new.requests_per_second * _SAME_DIRECTION <= old.requests_per_second for old, new in pairs)
    changes = [_change(old.failed_share, new.failed_share) for old, new in pairs]
    users = [_people(old.experiment.users) for old, _ in pairs]
    told = "; ".join(f"{change} with {people}" for change, people in zip(changes, users, strict=True))
    why = f"{'slower' if slower else 'not slower'}; {told}"
    brief = "; ".join(
        f"{new.requests_per_second:.0f}/s{f', {percent(new.failed_share)} failed' * (new.failed_share > 0)}"
        for _, new in pairs
    )
    if _MORE in changes or set(changes) == {_AS_MANY}:
        return Finding(measured, NOT, why, brief)
    if _FEWER in changes:
        return Finding(measured, REPRODUCED if slower and _AS_MANY not in changes else PARTLY, why, brief)
    return Finding(measured, PARTLY if slower and _AS_MANY not in changes else NOT, why, brief)


_NONE, _FEWER, _AS_MANY, _MORE = "no failures before or after", "fewer failures", "as many failures", "more failures"


def _change(old: float, new: float) -> str:
    """How the share of failed requests changed; two shares are alike within a point in a hundred or a factor of 1.5."""
    low, high = sorted((old, new))
    if high <= _NO_FAILURES:
        return _NONE
    if high - low <= _NO_FAILURES or high < low * _SAME_WITHIN:
        return _AS_MANY
    return _FEWER if new < old else _MORE


def _judge_no_failures(evidence: Evidence) -> Finding:
    runs = [evidence.outcomes["B.3.c1"], evidence.outcomes["B.3.c100"]]
    failed = sum(round(run.failed_share * run.requests) for run in runs)
    measured = f"{failed} of {sum(run.requests for run in runs)} requests failed"
    brief = f"{failed:,} of {sum(run.requests for run in runs):,} failed"
    if not failed:
        return Finding(measured, REPRODUCED, f"{_cpu(runs[1])} with 100 users", brief)
    kinds: Counter[str] = Counter()
    for run in runs:
        kinds.update(run.failures.by_kind)
    logged = ", ".join(f"{kind}: {number}" for kind, number in sorted(kinds.items()))
    return Finding(measured, NOT, f"logged by the servers: {logged or 'no failure'}", brief)


def _gain_claim(claim_id: str, over: str, new: str, old: str, published: float) -> Claim:
    """The claim that one shared pool serves `published` times as many requests a second as `old` does."""

    def judge(evidence: Evidence) -> Finding:
        without, pooled = evidence.outcomes[old], evidence.outcomes[new]
        slow, fast = without.requests_per_second, pooled.requests_per_second
        why = _costs(evidence, without, pooled)
        if pooled.failed_share > without.failed_share + _NO_FAILURES:
            measured = f"{fast:.0f} against {slow:.0f} requests/s, {percent(pooled.failed_share)} failed"
            return Finding(measured, NOT, "the shared pool fails more, and failures are quick", "it fails more")
        if not slow or not fast:
            served = "only the shared pool" if fast else "neither"
            return Finding(f"{served} served a request", PARTLY if fast else NOT, why, f"{served} served")
        ratio = fast / slow
        if published / _SAME_WITHIN <= ratio <= published * _SAME_WITHIN:
            verdict = REPRODUCED
        else:
            verdict = PARTLY if ratio >= _SAME_DIRECTION else NOT
        return Finding(
            f"{ratio:.1f} times ({fast:.0f} against {slow:.0f} requests/s)", verdict, why, f"{ratio:.1f} times"
        )

    def ratio_of(evidence: Evidence) -> float | None:
        slow = evidence.outcomes[old].requests_per_second
        return evidence.outcomes[new].requests_per_second / slow if slow else None

    criterion = (
        f"reproduced within {_SAME_WITHIN} times either way of {decimal(published)}; partly from {_SAME_DIRECTION} times on;"
        " not if the shared pool fails more"
    )
    return Claim(
        claim_id,
        "B",
        f"one shared pool serves more than {over}",
        f"{decimal(published)} times",
        criterion,
        (new, old),
        judge,
        figure=("ratio", "{:.1f}", ratio_of),
    )


def _costs(evidence: Evidence, without: ExperimentResult, pooled: ExperimentResult) -> str:
    """What a request cost without and with the pool, and what opening a connection costs, as measured."""
    costs = []
    old_ms, new_ms = _cpu_ms(without), _cpu_ms(pooled)
    if old_ms is not None and new_ms is not None:
        costs.append(f"CPU of servers and database for a request {old_ms:.1f} ms, with the shared pool {new_ms:.1f} ms")
    connecting = evidence.connecting
    if connecting is not None:
        method = f", {connecting.authentication} authentication" if connecting.authentication else ""
        costs.append(f"opening a connection takes {connecting.ms:.1f} ms on the idle database{method}")
    return "; ".join(costs) or "what a request and a connection cost was not measured"


def _judge_concurrency(evidence: Evidence) -> Finding:
    run = evidence.outcomes["A.pool10"]
    followed, recorded = run.answers(301), run.clicks_recorded or 0
    unanswered = run.requests - run.responses
    measured = f"{followed} redirects answered, {recorded} clicks recorded, {unanswered} requests without an answer"
    brief = f"{recorded:,} of {followed:,} recorded"
    if recorded == followed:
        return Finding(measured, REPRODUCED, "no click lost, none doubled", brief)
    if followed < recorded <= followed + unanswered:
        return Finding(
            measured, REPRODUCED, "none lost; the surplus is of requests whose answer was not awaited", brief
        )
    return Finding(measured, NOT, "clicks were lost" if recorded < followed else "clicks were doubled", brief)


def _judge_forty(evidence: Evidence) -> Finding:
    run = evidence.outcomes["A.pool10"]
    total = run.report.aggregate
    created, completed = total.counters.get(names.VUSERS_CREATED, 0), total.counters.get(names.VUSERS_COMPLETED, 0)
    p99 = _p99_ms(run)
    measured = f"{completed} of {created} users served, {percent(run.failed_share)} failed, p99 {p99} ms"
    brief = f"{percent(completed / created if created else None)} served, p99 {amount(p99)} ms"
    if created == completed and run.failed_share == 0:
        prompt = p99 is not None and p99 <= 1000
        return Finding(measured, REPRODUCED if prompt else PARTLY, _cpu(run), brief)
    return Finding(measured, NOT, _cpu(run), brief)


def _p99_ms(run: ExperimentResult) -> float | None:
    times = run.report.aggregate.summaries.get(names.RESPONSE_TIME)
    return times.p99 if times else None


def _nested_ratio(evidence: Evidence) -> float | None:
    plain, nested = (_mean_ms(evidence.outcomes[key]) for key in ("A.plain.c1", "A.nested.c1"))
    return nested / plain if plain else None


def _judge_nested(evidence: Evidence) -> Finding:
    """Judges by the source's load where that saturates nothing, else by that of 1 user."""
    told = []
    for plain_id, nested_id, load in (
        ("A.pool10", "A.analytics", "at the published rate"),
        ("A.plain.c1", "A.nested.c1", "with 1 user"),
    ):
        plain, nested = evidence.outcomes[plain_id], evidence.outcomes[nested_id]
        if saturated := _saturation(nested) or _saturation(plain):
            told.append(f"saturated {load}, so that time is the length of a queue ({saturated})")
        else:
            measured, verdict = _compare_reads(plain, nested)
            told.append(f"not saturated {load}")
            ratio = _mean_ms(nested) / _mean_ms(plain) if _mean_ms(plain) else None
            brief = ABSENT if ratio is None else f"{ratio:.1f} times {load}"
            return Finding(f"{load}: {measured}", verdict, "; ".join(told), brief)
    return Finding("-", NOT_JUDGED, "; ".join(told))


def _compare_reads(plain: ExperimentResult, nested: ExperimentResult) -> tuple[str, str]:
    """Compares time and database CPU of two reads, neither of them saturated. Returns what was measured, and the verdict."""
    times = _mean_ms(plain), _mean_ms(nested)
    cpu = _database_ms(plain), _database_ms(nested)
    measured = f"mean {times[0]:.1f} -> {times[1]:.1f} ms"
    if not (times[0] and cpu[0] and cpu[1]):
        return f"{measured}; the database's CPU was not measured", NOT_JUDGED
    ratios = times[1] / times[0], cpu[1] / cpu[0]
    measured += f", {ratios[0]:.1f}x; database CPU {cpu[0]:.2f} -> {cpu[1]:.2f} ms an answer, {ratios[1]:.1f}x"
    least, most = _MULTIPLE
    if all(least <= ratio <= most for ratio in ratios):
        verdict = REPRODUCED
    else:
        verdict = PARTLY if max(ratios) >= least and min(ratios) >= 1 else NOT
    return measured, verdict


def _judge_memory(evidence: Evidence) -> Finding:
    memory = evidence.memory
    assert memory is not None  # noqa: S101 - `needs` says so
    needed = memory.needed_mb(80)
    fits = int((512 - memory.shared_mb - memory.base_mb) / memory.per_backend_mb)
    measured = (
        f"{memory.per_backend_mb:.2f} MB a connection; 80 need {needed:.0f} MB with {memory.shared_mb:.0f} MB shared; "
        f"512 MB hold {fits}"
    )
    why = "shared memory counted once, not once for each connection"
    return Finding(measured, REPRODUCED if needed > 512 else NOT, why, f"80 connections need {needed:.0f} MB")


def _judge_restart(evidence: Evidence) -> Finding:
    restart = evidence.restart
    assert restart is not None  # noqa: S101 - `needs` says so
    measured = "links and clicks before {}, after {}".format(
        *(f"{a} + {b}" for a, b in (restart.before, restart.after))
    )
    same = restart.before == restart.after and restart.before[0] > 0
    why = "every row was there again" if same else "rows are missing"
    return Finding(measured, REPRODUCED if same else NOT, why, "no row lost" if same else why)


def _judge_limit(evidence: Evidence) -> Finding:
    runs = {size: evidence.outcomes.get(f"M.pool{size}") for size in (5, 10, 20, 40)}
    uses = {size: run.memory_use for size, run in runs.items() if run is not None and run.memory_use is not None}
    use = uses[20]
    if use.limit_mb is None:
        return Finding("-", UNMEASURED, "no limit of memory could be set here")
    held = [size for size, each in uses.items() if not each.oom_kills and each.answers_afterwards]
    failed = [f"{size} ({percent(run.failed_share)} failed)" for size, run in runs.items() if run is not None]
    measured = (
        f"pools of {', '.join(failed)}; with 20 at most {use.peak_mb or 0:.0f} of {use.limit_mb:.0f} MB, cache included,"
        f" {use.connections} connections and {use.pss_mb:.0f} MB of PSS, limit met {use.limit_hits} times, {use.oom_kills} killed"
    )
    if 20 not in held:
        why = f"{use.oom_kills} killed by the kernel" if use.oom_kills else "the database did not answer after the load"
        return Finding(measured, REPRODUCED, why)
    why = f"nothing was killed with pools of {', '.join(str(size) for size in held)}"
    return Finding(measured, PARTLY if use.limit_hits else NOT, why)


def _mean_ms(run: ExperimentResult) -> float:
    times = run.report.aggregate.sketches.get(names.RESPONSE_TIME)
    return times.mean if times else 0.0


def _cpu(run: ExperimentResult) -> str:
    servers = f"servers {percent(run.servers_cpu_s / run.wall_s)} of a core"
    if run.database_cpu_s is None:
        return servers
    return f"database {percent(run.database_cpu_s / run.wall_s)}, {servers}"


def _cpu_ms(run: ExperimentResult) -> float | None:
    """CPU of servers and database for each answer, in ms; None where the database's is not known."""
    if run.database_cpu_s is None or not run.responses:
        return None
    return (run.servers_cpu_s + run.database_cpu_s) * 1000 / run.responses


def _database_ms(run: ExperimentResult) -> float | None:
    """CPU of the database for each answer, in ms; None where it is not known."""
    return None if run.database_cpu_s is None or not run.responses else run.database_cpu_s * 1000 / run.responses


def _saturation(run: ExperimentResult) -> str | None:
    """What shows that an experiment was beyond what servers or database can do; None where nothing does."""
    key, total = run.experiment.title, run.report.aggregate
    if run.failed_share > 0:
        return f"{key}: {percent(run.failed_share)} of requests failed"
    wait = total.sketches.get(f"{names.SERVER}pool")
    if wait and wait.mean > _mean_ms(run) / 2:
        return f"{key}: {wait.mean:.0f} ms of {_mean_ms(run):.0f} ms were waiting for a connection"
    extras = run.report.extras
    cores = extras.environment.get("cores", 1) if extras else 1
    generator_s = extras.generator.get("cpu_s", 0.0) if extras else 0.0
    used = (run.servers_cpu_s + (run.database_cpu_s or 0.0) + generator_s) / (run.wall_s * cores)
    return f"{key}: {percent(used)} of {cores} cores in use" if used > 0.9 else None


def _people(users: int) -> str:
    return "1 user" if users == 1 else f"{users} users"


CLAIMS: tuple[Claim, ...] = (
    Claim(
        "B.too-many-clients", "B",
        "a connection per request is refused under load: too many clients (53300)",
        "63 % of 1 user, 71 % of 100",
        "reproduced if at least 30 % of the requests of 100 users are refused with 53300; partly if 53300 occurs at all",
        ("B.1.c1", "B.1.c100"), _judge_refusals,
        figure=("refused of 100 users", "{:.0%}", lambda evidence: _refused_share(evidence.outcomes["B.1.c100"])),
    ),
    Claim(
        "B.pool-per-request", "B", "a pool per request is slower than a connection per request, but fails less",
        "18/s; 20/s, 6.4 % failed",
        "reproduced if it is slower by 1.2 times and fails less than a connection per request wherever that fails; partly if only"
        " one of both holds; not if it fails more anywhere, or nowhere less; shares within 1 point or 1.5 times are alike",
        ("B.1.c1", "B.1.c100", "B.2.c1", "B.2.c100"), _judge_trade,
        figure=("requests/s of 100 users", "{:.2f}x", _trade_ratio),
    ),
    Claim(
        "B.no-failures", "B", "with one shared pool no request fails", "0 of 20,000 failed",
        "reproduced if no request fails, with 1 user and with 100", ("B.3.c1", "B.3.c100"), _judge_no_failures,
        by_rounds=False,
    ),
    _gain_claim("B.gain.c1", "a connection per request, 1 user", "B.3.c1", "B.1.c1", 5.8),
    _gain_claim("B.gain.c100", "a connection per request, 100 users", "B.3.c100", "B.1.c100", 4.0),
    _gain_claim("B.gain.pool", "a pool per request, 1 user", "B.3.c1", "B.2.c1", 14.0),
    Claim(
        "A.concurrency", "A",
        "no click is lost or counted twice, however many come at once", "said, not measured",
        "reproduced if as many clicks are recorded as redirects (301) were answered (requests left unanswered may add to them)",
        ("A.pool10",), _judge_concurrency, about_load=False, by_rounds=False,
    ),
    Claim(
        "A.forty", "A", "4 servers with 10 connections each hold 600 requests a second", "100 % served, p99 128 ms",
        "reproduced if every user is served without a failure and p99 is within a second; partly if p99 is beyond",
        ("A.pool10",), _judge_forty, figure=("p99", "{:.0f} ms", lambda evidence: _p99_ms(evidence.outcomes["A.pool10"])),
    ),
    Claim(
        "A.nested", "A", "reading a nested object costs a multiple of a plain read", "6.2 times (12 to 76 ms)",
        "reproduced if mean response time and database CPU an answer are both 2 to 20 times those of the plain read; partly if"
        " one of them is at least 2 times and neither is less than before; at the published rate if neither is saturated there,"
        " else with 1 user",
        ("A.pool10", "A.analytics", "A.plain.c1", "A.nested.c1"), _judge_nested,
        figure=("time with 1 user", "{:.1f}x", _nested_ratio),
    ),
    Claim(
        "A.memory", "A", "pools of 20 on 4 servers need more memory than 512 MB", "said, not measured",
        "reproduced if shared memory, the server's own, and 80 times that of one more connection pass 512 MB together",
        ("memory",), _judge_memory, about_load=False,
    ),
    Claim(
        "A.restart", "A", "links and clicks survive a restart of all servers and the database", "said",
        "reproduced if both row counts are the same after the restart", ("restart",), _judge_restart, about_load=False,
    ),
)  # fmt: skip
"""The claims of both sources, in the order in which they are shown."""

MORE_CLAIMS: tuple[Claim, ...] = (
    Claim(
        "M.twenty", "A", "a database in 512 MB does not hold the nested object's load with pools of 20 on 4 servers",
        "said, not measured",
        "reproduced if, under a real limit of 512 MB, the kernel kills a process of the database; partly if the limit is met,"
        " so that cache has to be given up, but nothing is killed", ("M.pool20",), _judge_limit, about_load=False,
    ),
)  # fmt: skip
"""Claims whose experiments run only when they are asked for by name."""


def claims_on(evidence: Evidence) -> tuple[Claim, ...]:
    """The claims on which this session may have something to say.

    Those of both sources, unless it was about other publications only; those of groups and publications that were run by name.
    """
    of_sources = CLAIMS if evidence.outcomes or not evidence.publications else ()
    of_groups = (claim for claim in MORE_CLAIMS if all(has(evidence, need) for need in claim.needs))
    others = (claim for publication in evidence.publications for claim in publication_claims(publication))
    return (*of_sources, *of_groups, *others)
