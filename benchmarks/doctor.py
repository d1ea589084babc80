"""Runs `loadgen doctor` on applications with one disease each, on their cured twins, and on healthy ones.

Two tables: what the command finds in each application of tests/doctor/applications, and what each cure changes, by a duel
between the application and its twin. With --overhead: what watching costs, in CPU of a loan, and in throughput of a service.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.watching import overhead
from loadgen.duel import run_duel, stretched
from loadgen.lab.doctor_findings import heading
from loadgen.lab.own_app import OwnAppOptions, arranged, own_script
from loadgen.lab.own_server import OwnApplication
from poolbench.diagnosis import Finding
from reports import names
from reports.compare.diff import Change, Diff, compare_paired
from reports.compare.figures import ERRORS

ROOT = Path(__file__).resolve().parents[1]
APPLICATIONS = ROOT / "tests" / "doctor" / "applications"
PAGE = ROOT / "docs" / "doctor.md"
_HEADINGS = {
    "findings": (
        "| application | first finding | its line | share | cured: findings |",
        "| --- | --- | --- | ---: | --- |",
    ),
    "cures": (
        "| application | p99, sick → cured | failed, sick → cured | the cure is, beyond chance |",
        "| --- | ---: | ---: | --- |",
    ),
}

SICK = {
    "leak": "leak",
    "kept_by_thread": "leak",
    "nested_checkout": "nested-checkout",
    "audit_in_log": "nested-checkout",
    "fork_shared": "fork-shared",
    "pool_per_request": "pool-per-request",
    "connection_per_request": "connection-per-request",
    "idle_in_transaction": "idle-in-transaction",
    "calling_with_locks": "idle-in-transaction",
    "session_left_open": "idle-in-transaction",
    "work_while_holding": "work-while-holding",
    "calling_while_holding": "work-while-holding",
    "program_while_holding": "work-while-holding",
    "n_plus_one": "n-plus-one",
    "lazy_template": "n-plus-one",
    "slow_statement": "slow-statement",
    "starvation": "starvation",
    "pool_too_small": "pool-too-small",
    "pool_too_large": "pool-too-large",
}
"""Applications with one disease, and its kind."""
HEALTHY = ("busy", "streaming", "batches", "retries", "two_engines")

_THREADS = "{python} -m gunicorn -w 2 -k gthread --threads 8 -b {{host}}:{{port}} {module}:app"
_SERVERS = {
    # Workers that are replaced begin with the connection that their parent had opened, each of them.
    "fork_shared": f"{_THREADS} --preload --max-requests 60",
    "work_while_holding": _THREADS.replace("-w 2", "-w 1"),
    "program_while_holding": _THREADS,
    "kept_by_thread": _THREADS,
    "session_left_open": _THREADS,
}
_MAX_CONNECTIONS = {"pool_too_large": 12}


def application_options(name: str) -> dict[str, Any]:
    """How an application such as `sick/leak` is run: its module, its script, its server and its database's limit."""
    module, stem = name.replace("/", "."), Path(name).name
    own, server = APPLICATIONS / f"{stem}.yml", _SERVERS.get(stem)
    return {
        "module": module,
        "script": str(own if own.exists() else APPLICATIONS / "load.yml"),
        "server": server.format(python=sys.executable, module=module) if server else None,
        "max_connections": _MAX_CONNECTIONS.get(stem, 100),
    }


def command(name: str, out: Path, seconds: float) -> list[str]:
    """The command line for an application such as `sick/leak`, to be run in the folder of the applications."""
    given = application_options(name)
    return [
        *(sys.executable, "-m", "loadgen", "doctor", "--app", f"{given['module']}:app"),
        *("--script", given["script"], "--seconds", f"{seconds:g}", "--servers", "2"),
        *("--setup", f"{sys.executable} setup.py", "--max-connections", str(given["max_connections"])),
        *("--out", str(out), "-o", str(out / "doctor.json")),
        *(("--server", given["server"]) if given["server"] else ()),
    ]


_TIMES_IN_A_DUEL = {"pool_too_large": 2, "starvation": 2}
"""Each side of a duel has half of the arrivals; these have as many as under the command."""

_TEMPLATES = {"lazy_template": "sick/templates/posts.html"}
"""Applications whose disease is in a template."""


def sick_line(name: str) -> str:
    """`file:line` of the disease: the line that says so."""
    path = _TEMPLATES.get(Path(name).name, f"{name}.py")
    lines = (APPLICATIONS / path).read_text().splitlines()
    return f"{path}:{next(number for number, line in enumerate(lines, 1) if line.endswith(('# sick', '{# sick #}')))}"


def main() -> None:
    """Run the benchmark and print its tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=12, help="of load for each application (default 12)")
    parser.add_argument("--duel-seconds", type=float, default=28, help="of load for each duel (default 28)")
    parser.add_argument("--only", default="", help="applications to run, separated by commas")
    parser.add_argument("--part", choices=("findings", "cures"), help="one of the two tables")
    parser.add_argument("--overhead", action="store_true", help="measure what watching costs instead")
    parser.add_argument("--write", action="store_true", help="write the rows into docs/doctor.md, beside its others")
    options = parser.parse_args()
    if options.overhead:
        overhead(write=options.write)
        return
    wanted = set(options.only.split(",")) if options.only else {*SICK, *HEALTHY}
    parts = {
        "findings": lambda: findings_rows(wanted, options.seconds),
        "cures": lambda: cure_rows(wanted, options.duel_seconds),
    }
    for part, rows in parts.items():
        if options.part in {None, part}:
            table = Table(part)
            for stem, row in rows():
                print(row.line, flush=True)
                if options.write:
                    table.put(stem, row.line)
                    put_example(stem, row.example)


class Table:
    """One of the tables of the page, in the order of the applications. Rows are put in, or replaced, one at a time."""

    def __init__(self, part: str) -> None:
        self._begins, self._ends = f"<!-- benchmarks/doctor.py writes {part} from here -->", f"<!-- {part} to here -->"
        self._heading = _HEADINGS[part]

    def put(self, stem: str, row: str) -> None:
        """Write the row of an application into the page."""
        above, rest = PAGE.read_text("utf-8").split(self._begins)
        old, below = rest.split(self._ends)
        rows = {line.split("|")[1].split()[0]: line for line in old.splitlines() if line.count("|") > 2}
        rows[stem] = row
        known = [rows[name] for name in (*SICK, *HEALTHY) if name in rows]
        lines = [above + self._begins, "", *self._heading, *known, "", self._ends + below]
        PAGE.write_text("\n".join(lines), "utf-8")


def put_example(stem: str, example: str) -> None:
    """Write what the command says of an application into its place on the page, where the page has one."""
    text = PAGE.read_text("utf-8")
    begins, ends = f"<!-- benchmarks/doctor.py writes {stem} from here -->\n", f"<!-- {stem} to here -->\n"
    if example and begins in text:
        above, rest = text.split(begins)
        PAGE.write_text(f"{above}{begins}{example}{ends}{rest.split(ends)[1]}", "utf-8")


class Row(NamedTuple):
    """A row of a table, and what the page shows of the application beside it."""

    line: str
    example: str = ""


def findings_rows(wanted: set[str], seconds: float) -> Iterator[tuple[str, Row]]:
    """What the command finds in each application: the disease and its line, and nothing in the twin and in healthy ones."""
    for stem, kind in SICK.items():
        if stem in wanted:
            sick, cured = _run(f"sick/{stem}", seconds), _run(f"cured/{stem}", seconds)
            first = sick["findings"][0] if sick["findings"] else {"kind": "none", "where": None, "share": 0.0}
            right = first["kind"] == kind and first["where"] == sick_line(f"sick/{stem}")
            line = "right" if right else first["where"]
            row = f"| {stem} | {first['kind']} | {line} | {first['share']:.0%} | {_told(cured)} |"
            yield stem, Row(row, _example(stem, first) if sick["findings"] else "")
    for stem in HEALTHY:
        if stem in wanted:
            yield stem, Row(f"| {stem} (healthy) | {_told(_run(f'healthy/{stem}', seconds))} | | | |")


def _example(stem: str, first: dict[str, Any]) -> str:
    """The first finding as the command shows it, and how the cured twin differs."""
    finding = Finding(**first)
    said = [
        heading(finding),
        "",
        f"{f'In {finding.endpoint}. ' if finding.endpoint else ''}{finding.evidence}",
        f"Cure: {finding.advice}",
    ]
    shown = [line for text in said for line in (textwrap.wrap(text, 130) or [""])]
    twins = [
        (APPLICATIONS / each / f"{stem}.py").read_text().replace("  # sick", "").splitlines()[1:]
        for each in ("sick", "cured")
    ]
    changes = [line for line in difflib.unified_diff(*twins, n=1, lineterm="") if line[:3] not in {"---", "+++"}]
    return "\n".join(["", "```", *shown, "```", "", "```diff", *changes, "```", "", ""])


def _run(name: str, seconds: float) -> dict[str, Any]:
    """An application's diagnosis. The cured twin runs under the script of the sick one."""
    print(name, file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        done = subprocess.run(
            command(name, out, seconds), cwd=APPLICATIONS, capture_output=True, text=True, check=False
        )
        if done.returncode not in {0, 1}:
            sys.exit(f"{name}: {done.stderr}")
        found: dict[str, Any] = json.loads((out / "doctor.json").read_text())
        return found


def _told(found: dict[str, Any]) -> str:
    return ", ".join(f"{each['kind']} {each['share']:.0%}" for each in found["findings"]) or "none"


def cure_rows(wanted: set[str], seconds: float) -> Iterator[tuple[str, Row]]:
    """A duel between each application and its twin, both unwatched: what the cure changes beyond chance."""
    os.chdir(APPLICATIONS)
    for stem in SICK:
        if stem in wanted:
            print(f"duel of {stem}", file=sys.stderr)
            found = {change.name: change for change in _duel(stem, seconds).changes}
            p99, failed, rate = (found.get(name) for name in _JUDGED)
            verdict = ", ".join(
                name
                for name, each in zip(("p99", "failures", "rate"), (p99, failed, rate), strict=True)
                if each is not None and each.verdict == "better"
            )
            for each in (p99, failed, rate):
                print(f"  {each}", file=sys.stderr)
            told = f"better: {verdict}" if verdict else f"no: {p99.verdict if p99 is not None else 'not measured'}"
            yield stem, Row(f"| {stem} | {_figures(p99, ' ms', 1)} | {_figures(failed, '%', 100)} | {told} |")


_JUDGED = (f"{names.RESPONSE_TIME}.p99", ERRORS, names.REQUEST_RATE)


def _duel(stem: str, seconds: float) -> Diff:
    """One script against an application and its twin at once, each with a database server of its own."""
    with ExitStack() as running:
        scripts = []
        for name in (f"sick/{stem}", f"cured/{stem}"):
            out = Path(running.enter_context(tempfile.TemporaryDirectory()))
            given = application_options(name)
            application = OwnApplication(
                f"{given['module']}:app",
                APPLICATIONS,
                Path(sys.executable),
                given["server"],
                (f"{sys.executable} setup.py",),
            )
            options = OwnAppOptions(
                application, given["script"], out, servers=2, max_connections=given["max_connections"]
            )
            arrangement = running.enter_context(arranged(options, lambda _: None))
            served = running.enter_context(arrangement.served("own", {}, out / "logs" / "server.log"))
            script = stretched(own_script(options, served.servers.url), seconds)
            times = _TIMES_IN_A_DUEL.get(stem, 1)
            phases = tuple(replace(phase, arrival_rate=times * phase.arrival_rate) for phase in script.phases)
            scripts.append(replace(script, phases=phases))
        done = run_duel((scripts[0], scripts[1]), lambda _: None, lambda _: None, seed=1)
    return compare_paired(done.a.report, done.b.report)


def _figures(change: Change | None, unit: str, factor: float) -> str:
    if change is None or change.old is None or change.new is None:
        return "–"
    return f"{factor * change.old:,.1f} → {factor * change.new:,.1f}{unit}"


if __name__ == "__main__":
    os.environ.setdefault("PYTHONDONTWRITEBYTECODE", "1")
    main()
