"""Runs `loadgen doctor` on applications with one disease each, on their cured twins, and on healthy ones.

Two tables: what the command finds in each application of tests/doctor/applications, and what each cure changes, by a duel
between the application and its twin. Rows are kept in a file (--into) as soon as they are measured. A row that is there
already is not measured again, unless the code that it depends on has changed; so the benchmark can be run in parts, and
goes on where it was interrupted:

    python -m benchmarks.doctor --into rows.json --only leak,kept_by_thread
    python -m benchmarks.doctor --into rows.json --write

A duel is short at first. Only if that does not show whether the cure is better, a longer one follows (see `_LOOKS`).

With --overhead: what watching costs, in CPU of a loan, and in throughput of a service.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.watching import overhead
from loadgen.duel import run_duel
from loadgen.lab.doctor_findings import heading
from loadgen.lab.own_app import OwnAppOptions, arranged, own_script
from loadgen.lab.own_server import OwnApplication
from loadgen.schedule import lasting
from poolbench.findings import Finding
from reports import names
from reports.compare.diff import Change, Diff, compare_paired
from reports.compare.figures import ERRORS
from reports.files import write_text
from reports.model import Report

ROOT = Path(__file__).resolve().parents[1]
APPLICATIONS = ROOT / "tests" / "doctor" / "applications"
PAGE = ROOT / "docs" / "doctor.md"
KEPT = Path("runs/doctor-benchmark.json")
_HEADINGS = {
    "findings": (
        "| application | first finding | its line | share | cured: findings |",
        "| --- | --- | --- | ---: | --- |",
    ),
    "cures": (
        "| application | duel | requests | p99, sick → cured (95 % interval) | failed, sick → cured | the cure is |",
        "| --- | ---: | ---: | ---: | ---: | --- |",
    ),
}

SICK = {
    "leak": "leak",
    "kept_by_thread": "leak",
    "nested_checkout": "nested-checkout",
    "nested_deadlock": "nested-checkout",
    "audit_in_log": "nested-checkout",
    "fork_shared": "fork-shared",
    "pool_per_request": "pool-per-request",
    "connection_per_request": "connection-per-request",
    "creator_without_pool": "connection-per-request",
    "refused_without_pool": "connection-per-request",
    "idle_in_transaction": "idle-in-transaction",
    "napping": "idle-in-transaction",
    "calling_with_locks": "idle-in-transaction",
    "session_left_open": "idle-in-transaction",
    "work_while_holding": "work-while-holding",
    "calling_while_holding": "work-while-holding",
    "program_while_holding": "work-while-holding",
    "n_plus_one": "n-plus-one",
    "lazy_template": "n-plus-one",
    "written_values": "n-plus-one",
    "update_per_row": "n-plus-one",
    "raw_cursor_rows": "n-plus-one",
    "connection_per_row": "n-plus-one",
    "commit_per_row": "n-plus-one",
    "slow_statement": "slow-statement",
    "timed_out": "slow-statement",
    "raw_cursor": "slow-statement",
    "slow_fetch": "slow-statement",
    "starvation": "starvation",
    "pool_too_small": "pool-too-small",
    "pool_too_large": "pool-too-large",
}
"""Applications with one disease, and its kind."""
HEALTHY = (
    "busy",
    "streaming",
    "batches",
    "pages",
    "retries",
    "two_engines",
    "lazy_engine",
    "replaced_workers",
    "own_creator",
    "streaming_rows",
)

_THREADS = "{python} -m gunicorn -w 2 -k gthread --threads 8 -b {{host}}:{{port}} {module}:app"
_SERVERS = {
    # Workers that are replaced begin with the connection that their parent had opened, each of them.
    "fork_shared": f"{_THREADS} --preload --max-requests 60",
    # Engines made in as many processes as are servers by default.
    "lazy_engine": _THREADS.replace("-w 2", "-w 4"),
    "replaced_workers": f"{_THREADS} --max-requests 60",
    "work_while_holding": _THREADS.replace("-w 2", "-w 1"),
    "program_while_holding": _THREADS,
    "kept_by_thread": _THREADS,
    "napping": _THREADS,
    "session_left_open": _THREADS,
}
_MAX_CONNECTIONS = {"pool_too_large": 12, "refused_without_pool": 12, "replaced_workers": 20}


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


_ARRIVALS_IN_A_DUEL = {
    "kept_by_thread": 3, "session_left_open": 2, "connection_per_request": 2, "work_while_holding": 1.5,
    "audit_in_log": 1.5, "idle_in_transaction": 1.5, "calling_with_locks": 1.5, "calling_while_holding": 1.5,
    "program_while_holding": 1.5, "napping": 1.5, "pool_too_small": 1.5, "pool_too_large": 2, "starvation": 2,
}  # fmt: skip
"""By how much more than under the command arrives in a duel, both sides together; one, where nothing is said.

Twice as many gives each side as many as under the command. The cured side must be able to serve its half.
"""

_WARM_UP_MS = 10_000
"""The beginning of a duel that is not compared."""

_LOOKS = ((0.5, 0.01), (1.0, 0.04))
"""The duels of a cure, one after the other until one has a verdict: their length, as a part of --duel-seconds, and their level.

A verdict of p99 or failures counts at p (corrected for all figures that a duel judges) up to the level. The duels are
separate runs, and their levels add up to 5 %: so often at most, a cure that changes nothing has a verdict.
"""

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
    parser.add_argument("--duel-seconds", type=float, default=60, help="of load for the longest duel (default 60)")
    parser.add_argument("--only", default="", help="applications to run, separated by commas")
    parser.add_argument("--part", choices=tuple(_HEADINGS), help="one of the two tables")
    parser.add_argument("--into", type=Path, default=KEPT, help=f"file that keeps the rows (default {KEPT})")
    parser.add_argument("--write", action="store_true", help="write the rows of the file into docs/doctor.md")
    parser.add_argument("--overhead", action="store_true", help="measure what watching costs instead")
    options = parser.parse_args()
    if options.overhead:
        overhead(write=options.write)
        return
    wanted = set(options.only.split(",")) if options.only else {*SICK, *HEALTHY}
    if unknown := wanted - {*SICK, *HEALTHY}:
        parser.error(f"no such application: {', '.join(sorted(unknown))}")
    into = options.into.resolve()
    kept: dict[str, dict[str, Any]] = json.loads(into.read_text("utf-8")) if into.exists() else {}
    for part, measured in (("findings", findings_row), ("cures", cure_row)):
        seconds = options.seconds if part == "findings" else options.duel_seconds
        for stem in (*SICK, *HEALTHY):
            if stem not in wanted or options.part not in {None, part} or (stem in HEALTHY and part == "cures"):
                continue
            name, state = f"{part} {stem}", {"code": _code(stem), "seconds": seconds}
            if {key: kept.get(name, {}).get(key) for key in state} != state:
                began_s = time.monotonic()
                row = measured(stem, seconds)
                kept[name] = {**state, **row._asdict()}
                into.parent.mkdir(parents=True, exist_ok=True)
                write_text(into, json.dumps(kept, indent=1) + "\n")
                print(f"{name}: {time.monotonic() - began_s:.0f} s", file=sys.stderr)
            print(kept[name]["line"], flush=True)
    if options.write:
        write(kept)


def _code(stem: str) -> str:
    """A digest of what a row depends on: this file, the library, the command's own modules, and the application's files."""
    files = [*(ROOT / "poolbench").glob("*.py"), *(ROOT / "loadgen" / "lab").glob("*.py")]
    files += [
        Path(__file__),
        *APPLICATIONS.glob("*/templates/*"),
        *APPLICATIONS.glob("*.py"),
        *APPLICATIONS.glob(f"{stem}.yml"),
        APPLICATIONS / "load.yml",
    ]
    files += [path for folder in ("sick", "cured", "healthy") for path in (APPLICATIONS / folder).glob(f"{stem}.py")]
    found = hashlib.sha256()
    for path in sorted(files):
        found.update(path.read_bytes())
    return found.hexdigest()[:16]


def write(kept: Mapping[str, Mapping[str, Any]]) -> None:
    """Write the tables into the page, of the rows that were measured with the code as it is, and the examples."""
    current = {name: row for name, row in kept.items() if row["code"] == _code(name.split()[1])}
    text = PAGE.read_text("utf-8")
    for part, heading_lines in _HEADINGS.items():
        begins, ends = f"<!-- benchmarks/doctor.py writes {part} from here -->", f"<!-- {part} to here -->"
        above, rest = text.split(begins)
        names = [f"{part} {stem}" for stem in (*SICK, *HEALTHY)]
        lines = [current[name]["line"] for name in names if name in current]
        if not lines:
            # Of this part nothing was measured.
            continue
        text = "\n".join([above + begins, "", *heading_lines, *lines, "", ends + rest.split(ends)[1]])
    PAGE.write_text(text, "utf-8")
    for name, row in current.items():
        put_example(name.split()[1], row["example"])


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


def findings_row(stem: str, seconds: float) -> Row:
    """What the command finds in an application: the disease and its line, and nothing in its twin; nothing in a healthy one."""
    if stem in HEALTHY:
        return Row(f"| {stem} (healthy) | {_told(_run(f'healthy/{stem}', seconds))} | | | |")
    sick, cured = _run(f"sick/{stem}", seconds), _run(f"cured/{stem}", seconds)
    first = sick["findings"][0] if sick["findings"] else {"kind": "none", "where": None, "share": 0.0}
    right = first["kind"] == SICK[stem] and first["where"] == sick_line(f"sick/{stem}")
    line = "right" if right else first["where"]
    row = f"| {stem} | {first['kind']} | {line} | {first['share']:.0%} | {_told(cured)} |"
    return Row(row, _example(stem, first) if sick["findings"] else "")


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


def cure_row(stem: str, seconds: float) -> Row:
    """Duels between an application and its twin, both unwatched: what the cure changes beyond chance.

    The last one lasts `seconds`; the first that has a verdict is the row.
    """
    for part, level in _LOOKS:
        print(f"duel of {stem}, {part * seconds:g} s", file=sys.stderr)
        with contextlib.chdir(APPLICATIONS):
            diff, requests = _duel(stem, part * seconds)
        verdicts = duel_verdicts(diff, level)
        if verdicts:
            break
    found = {row.name: row for row in diff.rows}
    p99, failed = (found.get(name) for name in _JUDGED)
    why = p99.reason or "no clear change" if p99 is not None else "not measured"
    cells = f"{part * seconds:g} s | {requests:,} | {_times(p99)} | {_shares(failed)}"
    return Row(f"| {stem} | {cells} | {', '.join(verdicts) or f'no: {why}'} |")


def duel_verdicts(diff: Diff, level: float) -> list[str]:
    """The clear changes of what is judged, at this level: `better: p99`, `worse: failures`. Better ones come first."""
    found = {row.name: row for row in diff.rows if row.p is not None and row.p <= level}
    judged = {told: found[name].verdict for name, told in _JUDGED.items() if name in found}
    return [f"{verdict}: {told}" for verdict in ("better", "worse") for told, each in judged.items() if each == verdict]


_JUDGED = {f"{names.RESPONSE_TIME}.p99": "p99", ERRORS: "failures"}
"""What decides whether a cure helps, and how the table calls it."""


def _duel(stem: str, seconds: float) -> tuple[Diff, int]:
    """One script against an application and its twin at once, each with a database server of its own, and all requests."""
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
            script = own_script(options, served.servers.url)
            times = _ARRIVALS_IN_A_DUEL.get(stem, 1)
            phases = tuple(
                replace(each, arrival_rate=times * each.arrival_rate) for each in lasting(script.phases, seconds)
            )
            scripts.append(replace(script, phases=phases))
        done = run_duel((scripts[0], scripts[1]), lambda _: None, lambda _: None, seed=1)
    reports = _without_start(done.a.report), _without_start(done.b.report)
    return compare_paired(*reports), sum(each.aggregate.counters.get(names.REQUESTS, 0) for each in reports)


def _without_start(report: Report) -> Report:
    """The report without its first period or two, in which leaks and queues build up: what is compared is where they lead."""
    begins_ms = min(each.start_ms for each in report.periods) + _WARM_UP_MS
    return Report.of((each for each in report.periods if each.start_ms >= begins_ms), report.extras)


def _times(change: Change | None) -> str:
    """The figure of both sides, and the factor between them with its interval: 2,000.0 → 20.0 ms (x 0.01, 0.005 to 0.02)."""
    if change is None or not change.old or change.new is None:
        return "–"
    told = f"{change.old:,.1f} → {change.new:,.1f} ms"
    if change.low is None or change.high is None:
        return told
    low, high = (1 + max(-1.0, each / change.old) for each in (change.low, change.high))
    return f"{told} (x {low:.3f} to {high:.3f})"


def _shares(change: Change | None) -> str:
    """The shares of both sides, and their difference's interval in percentage points."""
    if change is None or change.old is None or change.new is None:
        return "–"
    told = f"{change.old:.1%} → {change.new:.1%}"
    return (
        told
        if change.low is None or change.high is None
        else f"{told} ({100 * change.low:+.1f} to {100 * change.high:+.1f} points)"
    )


if __name__ == "__main__":
    os.environ.setdefault("PYTHONDONTWRITEBYTECODE", "1")
    main()
