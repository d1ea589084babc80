"""The pytest fixture `load`: a load test inside a test, with limits and a baseline that it must keep (docs/pytest.md).

pytest imports this module wherever the tool is installed, so it imports nothing but pytest at its start. The load is made
by a child process; nothing of the tool's is imported into the process of the tests, and nothing is patched there.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from math import inf
from pathlib import Path
from typing import Any, Literal

import pytest

_PROPERTY = "load"
_MOST_LINES = 15
_CANNOT = "Cannot be judged: "
_MISSING = ", not comparable: on "


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --load-report."""
    group = parser.getgroup("load", "load tests (Poolbench)")
    text = "Keep the report of each load test in this folder, as JSON, under the name of its test."
    group.addoption("--load-report", metavar="DIR", help=text)


@pytest.fixture
def load(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Load:
    """Make a load test of a service with each call; the result has its figures, times in ms."""
    kept = request.config.getoption("--load-report")
    folder = request.config.invocation_params.dir / kept if kept else tmp_path_factory.mktemp("load")
    folder.mkdir(parents=True, exist_ok=True)
    return Load(request, folder)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print a line for each load test and comparison of the session, where there was one."""
    ended = [
        each for some in terminalreporter.stats.values() for each in some if getattr(each, "when", "") == "teardown"
    ]
    told = [(each.nodeid, text) for each in ended for name, text in each.user_properties if name == _PROPERTY]
    if told:
        terminalreporter.section("load tests")
        for test, text in told:
            terminalreporter.write_line(f"{test}: {text}")


class Load:
    """What the fixture `load` gives to a test: a call is one run."""

    def __init__(self, request: pytest.FixtureRequest, folder: Path) -> None:
        self._node = request.node
        self._folders = (Path(request.node.path).parent, request.config.rootpath)
        self._reports = _names_in(folder, request.node.nodeid)

    def __call__(
        self,
        script: str | os.PathLike[str],
        *,
        rate: float | None = None,
        seconds: float | None = None,
        target: Any = None,
        environment: str | None = None,
        variables: Mapping[str, Any] | None = None,
        overrides: Mapping[str, Any] | None = None,
        workers: int = 1,
        seed: int | None = None,
        options: Sequence[str] = (),
    ) -> LoadResult:
        """Run a script, or send GETs to a URL, and wait for the end of the run.

        `script` is an Artillery script, looked for beside the test's file and then in pytest's root folder, or a URL. `rate`
        (new users per second) and `seconds` replace its phases; a URL needs both. `target` is the base URL of the service, or a
        live-server fixture that has one as `url`. `options` are further ones of `loadgen run`.

        Fails the test if the run could not be carried out, or if a check of the script itself (`ensure`, `expect`) failed.
        Raises ValueError where only one of `rate` and `seconds` is given.
        """
        __tracebackhide__ = True
        if (rate is None) != (seconds is None):
            raise ValueError("rate and seconds belong together: load(script, rate=50, seconds=5)")
        merged = dict(overrides or {})
        phases = [{"duration": seconds, "arrivalRate": rate}]
        name, report = os.fspath(script), next(self._reports)
        if "://" in name:
            if rate is None:
                raise ValueError("a URL needs rate and seconds: load(url, rate=50, seconds=5)")
            path = report.with_suffix(".script.json")
            path.write_text(json.dumps(_gets(name, phases)), "utf-8")
        else:
            path = self._find(name, "script")
            if rate is not None:
                merged["config"] = {**merged.get("config", {}), "phases": phases}
        command = ["run", "--quiet", "--output", str(report), "--workers", str(workers), *options]
        for option, value in (
            ("--target", _url(target)),
            ("--environment", environment),
            ("--variables", None if variables is None else json.dumps(variables)),
            ("--overrides", json.dumps(merged) if merged else None),
            ("--seed", seed),
        ):
            command += [] if value is None else [option, str(value)]
        try:
            done = _loadgen([*command, str(path)])
        finally:
            if "://" in name:
                path.unlink()
        if done.stderr:
            self._node.add_report_section("call", "load", done.stderr)
        if done.returncode or not report.exists():
            pytest.fail(
                f"loadgen run {name} ended with exit code {done.returncode}:\n{_last_lines(done)}", pytrace=False
            )
        result = LoadResult(report, self)
        self.tell(str(result))
        return result

    def read(self, report: str | os.PathLike[str]) -> LoadResult:
        """The result in a JSON report that `loadgen run` wrote before: a file beside the test or in pytest's root folder."""
        return LoadResult(self._find(os.fspath(report), "report"), self)

    def tell(self, text: str) -> None:
        """Put a line into the summary of the session, and into the JUnit file as a property of the test."""
        self._node.user_properties.append((_PROPERTY, text))

    def compare(
        self, result: LoadResult, baselines: Sequence[str | os.PathLike[str] | LoadResult], options: Sequence[str]
    ) -> Mapping[str, Any]:
        """What `loadgen diff` says of baselines and result, as its JSON has it. Fails the test if it cannot compare."""
        old = [b.report if isinstance(b, LoadResult) else self._find(os.fspath(b), "baseline") for b in baselines]
        sides = [*(f"--old={path}" for path in old), f"--new={result.report}"]
        done = _loadgen(["diff", *sides, "--format", "json", *options])
        if done.returncode not in (0, 1) or not done.stdout.startswith("{"):
            pytest.fail(f"loadgen diff ended with exit code {done.returncode}:\n{_last_lines(done)}", pytrace=False)
        found: Mapping[str, Any] = json.loads(done.stdout)
        lines = [*(check["line"] for check in found["checks"]), *found["notes"]]
        self._node.add_report_section("call", "comparison of load tests", "\n".join([found["headline"], *lines]))
        return found

    def _find(self, name: str, what: str) -> Path:
        for folder in self._folders:
            if (folder / name).is_file():
                return folder / name
        looked = " or ".join(str(folder) for folder in dict.fromkeys(self._folders))
        hint = "; to make one, run pytest --load-report DIR and copy the report" if what == "baseline" else ""
        pytest.fail(f"there is no {what} {name} in {looked}{hint}", pytrace=False)


class LoadResult:
    """The result of one run. Times are in ms, from the request being written to the first byte of its answer.

    Where no request was answered, times are infinite, so that a limit on them does not hold.
    """

    def __init__(self, report: Path, load: Load) -> None:
        self.report = report
        """The file of the report, as `loadgen report` and `loadgen diff` read it."""
        self._load = load

    @cached_property
    def document(self) -> Mapping[str, Any]:
        """The report itself: Artillery's document, decoded."""
        found: Mapping[str, Any] = json.loads(self.report.read_text("utf-8"))
        return found

    @property
    def counters(self) -> Mapping[str, int]:
        """All counters of the run by name, such as `http.codes.200`."""
        found: Mapping[str, int] = self.document["aggregate"].get("counters", {})
        return found

    @property
    def requests(self) -> int:
        """Requests that were sent."""
        return self.counters.get("http.requests", 0)

    @property
    def failures(self) -> int:
        """Requests that got no answer, or one with a status of 500 or more."""
        return sum(self.errors.values())

    @property
    def errors(self) -> Mapping[str, int]:
        """The failures by kind, such as `errors.ETIMEDOUT` and `http.codes.503`."""
        return {name: n for name, n in self.counters.items() if n and name.startswith(("errors.", "http.codes.5"))}

    @property
    def rate(self) -> float:
        """Answers per second, from the first event of the run to the last, taken for at least a second."""
        total = self.document["aggregate"]
        span_ms = (total.get("lastCounterAt") or 0) - (total.get("firstCounterAt") or 0)
        return self.counters.get("http.responses", 0) / max(1.0, span_ms / 1000)

    def time(self, row: str) -> float:
        """A row of the response time in ms: min, max, mean, median, p50, p75, p90, p95, p99 or p999."""
        found = self.document["aggregate"].get("summaries", {}).get("http.response_time", {}).get(row)
        return inf if found is None else float(found)

    p50 = property(lambda self: self.time("p50"), doc="Half of the answers were at least this quick, in ms.")
    p75 = property(lambda self: self.time("p75"), doc="75th percentile of the response time, in ms.")
    p90 = property(lambda self: self.time("p90"), doc="90th percentile of the response time, in ms.")
    p95 = property(lambda self: self.time("p95"), doc="95th percentile of the response time, in ms.")
    p99 = property(lambda self: self.time("p99"), doc="99th percentile of the response time, in ms.")
    p999 = property(lambda self: self.time("p999"), doc="99.9th percentile of the response time, in ms.")
    median = p50
    mean = property(lambda self: self.time("mean"), doc="Mean response time, in ms.")
    max = property(lambda self: self.time("max"), doc="Longest response time, in ms.")

    def not_worse_than(
        self,
        *baselines: str | os.PathLike[str] | LoadResult,
        figures: Sequence[str] = (),
        unjudged: Literal["pass", "fail"] = "pass",
        options: Sequence[str] = (),
    ) -> Comparison:
        """Whether no figure is worse than in the baseline by more than chance, as `loadgen diff --fail-on worse` judges it.

        `baselines` are reports of one or several runs of the old version: files beside the test or in pytest's root folder, or
        other results. `figures` names those that count, such as "p99" and "errors"; without, all do. Where the data are too
        few for a verdict, the comparison passes and the session's summary says so; `unjudged="fail"` fails it instead. It
        fails in any case where nothing was answered, or where a figure that is named is missing on a side.
        `options` are further ones of `loadgen diff`, such as ["--run-deviation", "10%"].

        Raises TypeError without a baseline.
        """
        __tracebackhide__ = True
        if not baselines:
            raise TypeError("not_worse_than() needs a baseline")
        rules = [f"{figure} worse" for figure in figures] or ["worse"]
        given = [each for rule in rules for each in ("--fail-on", rule)]
        diff = self._load.compare(self, baselines, [*given, *options])
        against = ", ".join(Path(b.report if isinstance(b, LoadResult) else b).name for b in baselines)
        silent = not self.counters.get("http.responses")
        found = Comparison(against, diff, fail_unjudged=unjudged == "fail" or silent)
        self._load.tell(str(found))
        return found

    def __repr__(self) -> str:
        times = ", ".join(f"{row} {self.time(row):g}" for row in ("p50", "p95", "p99"))
        return f"{self.requests} requests, {self.failures} failed, {self.rate:.4g} answers/s, {times} ms"


class Comparison:
    """Whether a run kept to its baseline: true or false in an `assert`, and a sentence as text."""

    def __init__(self, against: str, diff: Mapping[str, Any], *, fail_unjudged: bool) -> None:
        lines = [check["line"] for check in diff["checks"]]
        self.worse = tuple(line.removeprefix("FAILED: ") for line in lines if line.startswith("FAILED: "))
        """Each rule that is broken, with the figures."""
        self.unjudged = tuple(line.removeprefix("NOT JUDGED: ") for line in lines if line.startswith("NOT JUDGED: "))
        """Each rule for which there is no verdict, with the reason."""
        self.warnings = tuple(diff["warnings"])
        """What a reader must know of both sides, such as that they were measured on different machines."""
        self.headline = str(diff["headline"])
        self._against = against
        self._fail_unjudged = fail_unjudged or any(_MISSING in line for line in self.unjudged)

    def __bool__(self) -> bool:
        return not self.worse and not (self.unjudged and self._fail_unjudged)

    def __repr__(self) -> str:
        if self.worse:
            return f"worse than {self._against}: {'; '.join(map(_figures_of, self.worse))}"
        if self.unjudged:
            general = [w.removeprefix(_CANNOT) for w in self.warnings if w.startswith(_CANNOT)]
            reasons = general or map(_figures_of, self.unjudged)
            return f"cannot be judged against {self._against}: {'; '.join(reasons)}"
        return f"not worse than {self._against}"


def _figures_of(line: str) -> str:
    """The figures of a gate's line: `worse (p99 41 -> 54, +31%, worse)` without what `Comparison` says already."""
    found = re.fullmatch(r"[^(]*\((.*)\)", line)
    text = found[1] if found else line
    return text.replace("http.response_time.", "").replace(", worse", "")


def _gets(url: str, phases: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """A script that sends one GET for each user."""
    return {"config": {"target": url, "phases": phases}, "scenarios": [{"flow": [{"get": {"url": url}}]}]}


def _url(target: Any) -> str | None:
    """The URL of a target: a text, or a live server's `url`, an attribute or a method."""
    if target is None or isinstance(target, str):
        return target
    found = getattr(target, "url", None)
    return str(found() if callable(found) else found if found is not None else target)


def _names_in(folder: Path, test: str) -> Iterator[Path]:
    """Paths of reports named after a test. The second and later runs of one test have a number."""
    name = re.sub(r"[^\w.-]+", "-", test.replace("::", "-")).strip("-")[-150:]
    number = 1
    while True:
        yield folder / (f"{name}.json" if number == 1 else f"{name}-{number}.json")
        number += 1


def _loadgen(arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run the tool in a process of its own; `-P` keeps the tests' folder off its import path."""
    # A summary of GitHub's would have a section for each of a session's runs.
    own = {name: value for name, value in os.environ.items() if name != "GITHUB_STEP_SUMMARY"}
    command = [sys.executable, "-P", "-m", "poolbench_tool", *arguments]
    return subprocess.run(command, env=own, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)


def _last_lines(done: subprocess.CompletedProcess[str]) -> str:
    return "\n".join((done.stderr.strip() or done.stdout.strip()).splitlines()[-_MOST_LINES:])
