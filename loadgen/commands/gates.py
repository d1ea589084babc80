"""What became of a run's gates: of the script's checks and expectations, of `--abort-on`, and of the run itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from loadgen.runner import ScriptRun
from loadgen.script.ensure import CheckResult, EnsureResult
from reports import names
from reports.blocks import decimal
from reports.compare.gates import GateResult

if TYPE_CHECKING:
    from loadgen.watch.abort import AbortWatch

_WHOLE = "the run reached its planned end"
_EXPECTED = "all expectations held"
_EXIT_CODE = "no function of the processor set an exit code"


def run_results(
    run: ScriptRun, ensured: EnsureResult | None, abort: AbortWatch | None, failed: str | None
) -> list[GateResult]:
    """The result of each gate of a run, first whether it reached its end. `failed`: why its `after` section failed.

    A run that a condition of --abort-on ended has that condition's result in place of the first.
    """
    return [*_results(run, ensured, abort, failed)]


def _results(
    run: ScriptRun, ensured: EnsureResult | None, abort: AbortWatch | None, failed: str | None
) -> Iterator[GateResult]:
    reasons = [*([failed] if failed else []), *run.failures]
    if run.signal is not None:
        reasons.append(f"it was ended by signal {run.signal}")
    aborted = abort is not None and abort.ended_by is not None
    if not reasons and not aborted and run.report.extras is not None and run.report.extras.partial:
        reasons.append("it was ended early")
    if reasons or not aborted:
        yield _result(_WHOLE, not reasons, "; ".join(reasons))
    if abort is not None:
        yield from abort.results(run.report.aggregate)
    for found in ensured.results if ensured else ():
        yield _check(found)
    counters = run.report.aggregate.counters
    ok, not_ok = counters.get(names.EXPECT_OK, 0), counters.get(names.EXPECT_FAILED, 0)
    if ok or not_ok or run.expectation_failed:
        yield _result(_EXPECTED, not run.expectation_failed, f"{not_ok:,} of {ok + not_ok:,} did not hold")
    if run.exit_code:
        yield _result(_EXIT_CODE, False, f"exit code {run.exit_code}")


def _check(found: CheckResult) -> GateResult:
    figures = ", ".join(f"{name} {decimal(value)}" for name, value in found.figures.items())
    told = figures or "the run has no such metric"
    return _result(found.check.text, found.held, told, optional=not found.check.strict)


def _result(rule: str, met: bool, told: str, *, optional: bool = False) -> GateResult:
    outcome = "passed" if met else "NOT MET (optional)" if optional else "FAILED"
    return GateResult(rule, met, f"{outcome}: {rule}{f' ({told})' if told else ''}", optional)
