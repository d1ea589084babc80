"""A user's own application, as it is, under each strategy: randomised turns of the same script, each with a fresh database."""

from __future__ import annotations

import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

import psycopg2
from sqlalchemy import make_url

from loadgen.environment import environment
from loadgen.lab import distance
from loadgen.lab.ending import Ending
from loadgen.lab.evidence import Crossing
from loadgen.lab.folders import made
from loadgen.lab.local_script import local_script
from loadgen.lab.own_app_findings import OwnAppResult, OwnAppRun, own_app_page, parameters, what_failed
from loadgen.lab.own_database import (
    EmbeddedDatabases,
    OwnDatabase,
    UsersDatabase,
    databases,
    hidden_ways,
    mask_file,
    masking,
    shown,
)
from loadgen.lab.own_evidence import Evidence
from loadgen.lab.own_server import (
    AppServer,
    Attachments,
    Interpreter,
    OwnApplication,
    look_at,
    set_up,
    shown_command,
    unquoted_password,
    url_variables,
)
from loadgen.lab.stack import BackendWatch, Servers, StackError, cpu_of_tree, last_error
from loadgen.lab.turns import in_turns
from loadgen.runner import Interrupted, Live, ScriptRun, new_run_id, run_script
from loadgen.script.model import Script
from loadgen.script.parse import RunOptions
from loadgen.watch.console import Console
from poolbench.settings import POOL_SETTINGS
from reports import names
from reports.answers import failed_share, good_answers
from reports.blocks import Page
from reports.files import write_text
from reports.formats import artillery_json
from reports.merge import merge
from reports.writers.output import write_summaries

STRATEGIES = ("own", "null", "queue", "fair")
"""`own` is the pool that the application itself configures."""

_DEFAULTS = {"DB_POOL_SIZE": "10", "DB_POOL_MAX_OVERFLOW": "0", "DB_POOL_TIMEOUT": "5"}
_NO_OPTIONS = RunOptions()
_FIRST_USERS = 5
_NO_TABLE = re.compile(r'UndefinedTable|relation "[^"]+" does not exist')
_WORTH_A_LOOK = 0.05
"""The share of failed requests from which on the server's log is looked into for an error."""
_OF_ANOTHER_SERVER = re.compile(
    r"""extension "[^"]+" is not available|extension control file|permission denied to create|must be superuser"""
    r"""|(role|collation) "[^"]+"( for encoding "[^"]+")? does not exist"""
)
_UNTIMED = (
    "The answers have no Server-Timing, which they get under gunicorn, waitress, werkzeug and gevent: there are no times of"
    " the pool and of the workers' CPU."
)


class NothingAnsweredError(Exception):
    """No request was answered well; the message is one line with the last error of the server's log.

    `counters`: those of the requests that were sent, as a report has them.
    """

    def __init__(self, message: str = "", counters: Mapping[str, int] | None = None) -> None:
        super().__init__(message)
        self.counters = counters or {}


class UnprovedError(StackError):
    """The application was not seen to use the database given. `failed`: its engine is for it, but answers were errors."""

    failed = False


class RefusedError(Exception):
    """The user did not want the run."""


@dataclass(frozen=True, slots=True)
class OwnAppOptions:
    """The application to run, and how. `settings` are DB_POOL_… variables; a strategy gets those that it knows."""

    application: OwnApplication
    script: str
    out: Path
    strategies: Sequence[str] = STRATEGIES
    servers: int = 4
    database_url: str | None = None
    """URL of the user's own database; None: an embedded PostgreSQL, with a fresh copy of its tables for each turn."""
    settings: Mapping[str, str] = field(default_factory=lambda: dict(_DEFAULTS))
    round_trip_ms: float | None = None
    """Round trip to put between the application and the database, in ms; None: no distance."""
    rounds: int = 2
    """How often each strategy is run."""
    seed: int = 0
    """Seed of the order of the turns."""
    max_connections: int = 100
    """Connections that an embedded database allows."""
    with_statistics: bool = False
    """Whether an embedded database counts its statements (pg_stat_statements)."""
    confirm: Callable[[str], bool] = lambda _: False
    """Asks the user whether to go on; not called for an embedded database."""
    script_options: RunOptions = _NO_OPTIONS
    """How the script is read, but for its target, its phases and the environment."""


def chosen_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """The default settings, overridden by those that the environment has. Raises StackError for a wrong value."""
    given = {setting: environ.get(setting.variable, "").strip() for setting in POOL_SETTINGS}
    for setting, text in given.items():
        try:
            setting.kind(text or "1")
        except ValueError as error:
            raise StackError(f"{setting.variable}={text} in the environment: must be {error}") from None
    return _DEFAULTS | {setting.variable: text for setting, text in given.items() if text}


def run(options: OwnAppOptions, say: Callable[[str], None], live: Live) -> tuple[Page, int | None]:
    """Runs the comparison, and writes all reports. Returns the comparison, and the number of the signal that ended it early.

    An error in a later run is raised when the reports of those before it are written.
    Raises StackError, NothingAnsweredError, RefusedError, DatabaseError, ScriptErrors, EmbeddedPostgresError, psycopg2.Error,
    Interrupted where a signal came before anything was measured, and WriteError or OSError for files.
    """
    # Read now, so that a mistake in the script is reported before anything is started.
    own_script(options, "http://127.0.0.1:1")
    ending = Ending()
    comparison: _Comparison | None = None
    with made(options.out):
        with (
            ending.kept(lambda: comparison is not None and comparison.is_measured),
            arranged(options, say) as arrangement,
        ):
            comparison = _Comparison(options, arrangement, say, live)
            comparison.run()
        # The notes are whole only now: rows that were written are counted at the end.
        page = comparison.page(ending)
        write_summaries(page, options.out, environment(), comparison.given())
        if ending.error is not None:
            say(f"What was measured until then is in {options.out}")
            raise ending.error
    return page, ending.signal


@dataclass
class Arrangement:
    """What all turns share: the database, the library for the servers, and the distance between them."""

    options: OwnAppOptions
    databases: EmbeddedDatabases | UsersDatabase
    attachments: Attachments
    far_url: str
    crossing: Crossing | None
    masked: Callable[[str], str]
    notes: list[str]
    say: Callable[[str], None]

    @contextmanager
    def served(self, strategy: str, settings: Mapping[str, str], log: Path, *, watch: bool = False) -> Iterator[Served]:
        """The application under a strategy with a fresh database, serving; `watch`: and observed for the doctor.

        Raises StackError, with no password in it.
        """
        source = self.databases
        with source.fresh() as database:
            most = source.most
            url = _at_distance(database.app_url, self.far_url) if self.crossing else database.app_url
            given = _within(parameters(strategy, settings), most)
            program = self.attachments.server(strategy, given, database.place, url, most, watch=watch)
            variables = url_variables(self.options.application.url_variables, url)
            # Of an earlier run into the same folder.
            log.unlink(missing_ok=True)
            servers = Servers(program, self.options.servers, variables, log, self.masked)
            try:
                servers.start()
                self._tell_of_others(program)
                yield Served(servers, program, database)
                self._tell_of_others(program)
            except StackError as error:
                evidence = Evidence.read(program.evidence)
                application = self.options.application
                fault = evidence.fault(application.url_variables)
                if fault and (evidence.explains or evidence.missed):
                    raise StackError(self.masked(f"{application.name}: {fault}")) from None
                said = (
                    last_error(self.masked(log.read_text(errors="replace")))
                    if isinstance(error, UnprovedError) and error.failed
                    else None
                )
                if said:
                    advice = application.hint(said, evidence)
                    raise StackError(self.masked(f"{error}. The last error in {log}: {said}{advice}")) from None
                advice = application.hint(str(error), evidence)
                raise StackError(self.masked(f"{error} (see {log}).{advice}".removesuffix("."))) from None
            finally:
                servers.stop()
                program.end_strays()
                mask_file(log, self.masked)

    def _tell_of_others(self, program: AppServer) -> None:
        """Say, once, that the application has an engine for another kind of database, from which nothing keeps it away."""
        evidence = Evidence.read(program.evidence)
        note = f"It also has an engine for {self.masked(evidence.foreign)}, and may write there: only PostgreSQL is guarded."
        if evidence.foreign and evidence.has_engine and note not in self.notes:
            self.notes.append(note)
            self.say(note)


@dataclass(frozen=True, slots=True)
class Served:
    """A serving application and its database."""

    servers: Servers
    program: AppServer
    database: OwnDatabase

    def cpu_s(self) -> tuple[float, float | None]:
        """CPU seconds used so far by the servers, and by the database where it is embedded."""
        postgres = self.database.postgres
        return self.servers.cpu_s(), cpu_of_tree(postgres.pid) if postgres else None


@contextmanager
def arranged(options: OwnAppOptions, say: Callable[[str], None]) -> Iterator[Arrangement]:
    """Prepare everything that all turns share, setup commands included. Raises as `run` does."""
    application = options.application
    interpreter = look_at(application.python)
    if application.server is None and not interpreter.has("gunicorn"):
        raise StackError(
            f"{application.python} has no gunicorn: install it there, or give your own server with"
            " --server 'COMMAND with {host} and {port}'"
        )
    notes = list(_notes(application, interpreter))
    with (
        hidden_ways() if options.database_url is None else nullcontext(()) as hidden,
        databases(
            options.database_url,
            interpreter.driver,
            options.servers,
            options.max_connections,
            with_statistics=options.with_statistics,
        ) as found,
        distance.at(found.base.monitor_url, options.round_trip_ms) as (far_url, crossing),
        tempfile.TemporaryDirectory(prefix="poolbench-lab-") as folder,
    ):
        if unquoted := unquoted_password(application.url_variables, found.base.app_url):
            notes.append(unquoted)
        if hidden:
            notes.append(f"Not used, as the embedded database is another server than theirs: {', '.join(hidden)}.")
        if isinstance(found, UsersDatabase):
            notes += _agreed(options, found)
        given = [options.database_url] if options.database_url is not None else []
        masked = masking(found.base.app_url, found.base.monitor_url, *given)
        notes = list(map(masked, notes))
        for note in notes:
            say(note)
        variables = url_variables(application.url_variables, found.base.app_url)
        (options.out / "logs").mkdir(parents=True, exist_ok=True)
        attachments = Attachments(application, interpreter, Path(folder))
        setting_up = attachments.server(None, {}, found.base.place, found.base.app_url)
        try:
            with set_up(setting_up, variables, options.out / "logs" / "setup.log", masked, say):
                yield Arrangement(options, found, attachments, far_url, crossing, masked, notes, say)
        except (StackError, NothingAnsweredError) as error:
            # These may quote what the application has said.
            said = masked(str(error))
            raise type(error)(said + ("" if options.database_url else of_another_server(said))) from None
        finally:
            if isinstance(found, UsersDatabase):
                notes.append(f"Rows written to {shown(options.database_url or '')}: {_written(found)}.")
                say(notes[-1])


def _notes(application: OwnApplication, interpreter: Interpreter) -> Iterator[str]:
    yield f"The application has {interpreter}."
    if application.server is not None:
        yield f"Served by: {shown_command(application.server)}"
        return
    worker = (
        "one gevent worker"
        if interpreter.has("gevent")
        else "one worker with 8 threads (gevent is not installed there)"
    )
    yield f"Served by gunicorn of {application.python}, {worker} for each server (--server runs your own command)."
    if (application.folder / "gunicorn.conf.py").exists():
        yield (
            "gunicorn.conf.py is not used; with it: --server 'gunicorn -c gunicorn.conf.py -b {host}:{port}"
            f' "{application.name}"\''
        )


def _agreed(options: OwnAppOptions, found: UsersDatabase) -> list[str]:
    """What will happen to the user's own database, to which the user has agreed. Raises RefusedError."""
    where = shown(options.database_url or "")
    tables = ", ".join(found.tables()) or "none yet"
    most = found.most or 0
    allowed = found.max_connections
    opened, each = (
        (
            f"At most {most * options.servers} of the database's {allowed} connections will be open",
            f"Each of {options.servers} server processes",
        )
        if options.application.server is None
        # A command of the user's own may have any number of processes.
        else (
            f"Each server process will open at most {most} of the database's {allowed} connections",
            "Each server process",
        )
    )
    question = (
        f"The script's requests will write to {where}, as its users would; nothing is undone. Its tables: {tables}."
        f" {opened}. Go on?"
    )
    if not options.confirm(question):
        raise RefusedError(f"{question} Not without --yes")
    share = f"half of those free now{'' if options.application.server is None else f', divided by {options.servers}'}"
    return [f"{each} may open {most} connections to {where}, {share}."]


def _written(found: UsersDatabase) -> str:
    """What was changed in the user's own database, in words."""
    try:
        return "; ".join(found.written()) or "none that its statistics show"
    except psycopg2.Error:
        return "not known, as the database does not answer"


def _within(given: dict[str, str], most: int | None) -> dict[str, str]:
    """The parameters, with no larger a pool than a process may open."""
    if most is None or "pool_size" not in given:
        return given
    size = min(int(given["pool_size"]) or most, most)
    overflow = int(given.get("max_overflow", "0"))
    return {**given, "pool_size": str(size), "max_overflow": str(min(overflow if overflow >= 0 else most, most - size))}


def of_another_server(error: str) -> str:
    """What to do about an error for want of what only another server than the embedded one has, in a sentence; else ""."""
    if not _OF_ANOTHER_SERVER.search(error):
        return ""
    return ". The embedded PostgreSQL has only what comes with it, and a role without more rights: --database-url names yours"


def _at_distance(url: str, far_url: str) -> str:
    """The application's URL, changed to lead through the process that stands for the distance."""
    far = make_url(far_url)
    return make_url(url).set(host=far.host, port=far.port, query=far.query).render_as_string(hide_password=False)


def prove(served: Served, options: OwnAppOptions, live: Live) -> bool:
    """Whether the application was seen to use the database given, for which some users of the script may have to be sent.

    False: its engine may, but none of their requests needed it; `judge` says after the load whether others did.
    Raises StackError, or NothingAnsweredError, with the reason why it does not, and Interrupted where a signal came first.
    """
    given = options.application.url_variables
    evidence = Evidence.read(served.program.evidence)
    counters: Counter[str] = Counter()
    if evidence.fault(given) and not evidence.explains and not evidence.is_foreign_only(given):
        for script in _first_users(options, served.servers.url):
            done = run_script(script, Console(lambda _: None), live)
            if done.signal is not None:
                raise Interrupted(done.signal)
            counters.update(done.report.aggregate.counters)
            evidence = Evidence.read(served.program.evidence)
            is_open = evidence.fault(given) and evidence.is_open and good_answers(counters)
            if not is_open or (evidence.may_lend and evidence.has_engine):
                break
    fault = evidence.fault(given)
    if fault is None:
        return True
    if counters and evidence.may_lend:
        if not good_answers(counters):
            # Without an answer there is nothing to prove by.
            raise NothingAnsweredError(counters=counters)
        if evidence.has_engine and not any(evidence.of("kept")):
            return False
    told = [fault]
    if evidence.foreign:
        sent = f"{counters[names.VUSERS_CREATED]} users were" if counters else "No user was"
        told.append(f"{sent} sent to {evidence.foreign}")
    if kinds := _kinds(counters):
        told.append(f"The answers: {kinds}")
    if _leads_to_https(counters):
        told.append(
            "It seems to lead to https: switch that off, or let the script send the header X-Forwarded-Proto: https"
        )
    error = UnprovedError(f"{options.application.name}: {_sentences(told)}")
    error.failed = any(name.startswith(f"{names.CODES}5") for name in counters) and any(
        each.get("given") for each in evidence.of("engine")
    )
    raise error


def _first_users(options: OwnAppOptions, url: str) -> Iterator[Script]:
    """What is run to see whether the application uses the database: a few users, then one of each scenario."""
    yield own_script(options, url, {"duration": 1, "arrivalCount": _FIRST_USERS})
    single = own_script(options, url, {"duration": 1, "arrivalCount": 1})
    if len(single.scenarios) > 1:
        yield from (replace(single, scenarios=(each,)) for each in single.scenarios if each.weight)


def judge(served: Served, options: OwnAppOptions, counters: Mapping[str, int]) -> None:
    """Raise StackError where the requests of a load have not used the database given, or asked for another one."""
    fault = Evidence.read(served.program.evidence).fault(options.application.url_variables)
    if fault:
        raise StackError(f"{options.application.name}: {_sentences([fault, f'The answers: {_kinds(counters)}'])}")


def _leads_to_https(counters: Mapping[str, int]) -> bool:
    """Whether redirects were followed by answers that are no TLS, as http and https have no port in common here."""
    return bool(counters.get(f"{names.ERRORS}EPROTO")) and any(name.startswith(f"{names.CODES}3") for name in counters)


def _sentences(parts: Sequence[str]) -> str:
    """Sentences without their full stops as one text, itself without the last one."""
    return " ".join(part if part.endswith("?") else f"{part}." for part in parts).removesuffix(".")


def unanswered(
    named: str,
    log: Path,
    masked: Callable[[str], str],
    counters: Mapping[str, int] | None = None,
    *,
    has_setup: bool = False,
) -> NothingAnsweredError:
    """The error of a run without a good answer: its failures by kind and endpoint, and the last error of the server's log.

    Where the log has no error, its last line that is not just information. `named`: the application, and how it was run.
    `masked` removes passwords. Where tables are missing, the advice is a --setup; `has_setup`: one was given, and has run.
    """
    kinds = what_failed(counters or {})
    how = f" ({kinds})" if kinds else ""
    # Masked before it is cut, so that no part of a password is left.
    text = masked(log.read_text(errors="replace"))
    lines = [line.strip() for line in text.splitlines() if line.strip() and "[INFO]" not in line]
    error = last_error(text)
    if not error and not lines:
        return NothingAnsweredError(f"{named}: no request was answered well{how}. {log} has no error")
    what, said = ("error", error) if error else ("line", lines[-1][:300])
    advice = ""
    if _NO_TABLE.search(said) and not has_setup:
        advice = ". Run what makes its tables first: --setup 'flask db upgrade', for example"
    return NothingAnsweredError(f"{named}: no request was answered well{how}. The last {what} in {log}: {said}{advice}")


def _kinds(counters: Mapping[str, int]) -> str:
    """How often each status and each error came, such as "201: 5, 404: 10"."""
    return ", ".join(
        f"{name.removeprefix(names.CODES).removeprefix(names.ERRORS)}: {count}"
        for name, count in counters.items()
        if name.startswith((names.CODES, names.ERRORS)) and count
    )


class _Comparison:
    """A comparison in progress."""

    def __init__(
        self, options: OwnAppOptions, arrangement: Arrangement, say: Callable[[str], None], live: Live
    ) -> None:
        self._options, self._arrangement, self._say, self._live = options, arrangement, say, live
        self._runs: dict[str, list[OwnAppRun]] = {name: [] for name in options.strategies}
        self._reads: dict[str, None] = {}
        self._driver = "psycopg2"
        self._has_told_error = False

    @property
    def is_measured(self) -> bool:
        """Whether any run has a result."""
        return any(self._runs.values())

    def run(self) -> None:
        """Run all turns: in each round every strategy once, in a random order."""
        options = self._options
        for strategy in in_turns(options.strategies, options.rounds, Random(options.seed)):
            number = len(self._runs[strategy]) + 1
            self._say(f"round {number} of {options.rounds}: {options.application.name}, {strategy}")
            self._turn(strategy, number)

    def _turn(self, strategy: str, number: int) -> None:
        options, masked = self._options, self._arrangement.masked
        named = f"{options.application.name} with {strategy}"
        log = options.out / "logs" / f"{strategy}.{number}.log"
        parts: list[str] = []
        console = Console(parts.append)
        with self._arrangement.served(strategy, options.settings, log) as served:
            try:
                is_proved = prove(served, options, self._live)
            except NothingAnsweredError as error:
                raise unanswered(
                    named, log, masked, error.counters, has_setup=bool(options.application.setup)
                ) from None
            if is_proved:
                self._note(served)
            else:
                self._say("The first users did not need the database: whether others do is judged after the run")
            script = own_script(options, served.servers.url)
            console.run_id(new_run_id())
            before = served.cpu_s()
            with BackendWatch(served.database.monitor_url) as watch:
                started = time.monotonic()
                done: ScriptRun = run_script(script, console, self._live)
                wall_s = time.monotonic() - started
            after = served.cpu_s()
            if is_proved or done.signal is None:
                # Requests may have been the first to ask for another database.
                judge(served, options, done.report.aggregate.counters)
            if not is_proved:
                self._note(served)
        console.summary(done.report)
        servers_cpu_s = after[0] - before[0]
        database_cpu_s = None if after[1] is None or before[1] is None else after[1] - before[1]
        measured = OwnAppRun(done.report, watch.peak, wall_s, servers_cpu_s, database_cpu_s)
        self._runs[strategy].append(measured)
        self._write(strategy, number, "".join(parts))
        if done.signal is not None:
            raise Interrupted(done.signal)
        if not any(good_answers(each.report.aggregate.counters) for some in self._runs.values() for each in some):
            raise unanswered(
                named, log, masked, done.report.aggregate.counters, has_setup=bool(options.application.setup)
            )
        if failed_share(done.report.aggregate.counters) >= _WORTH_A_LOOK:
            self._tell_error(log, Evidence.read(served.program.evidence))
        if f"{names.SERVER}total" not in done.report.aggregate.summaries and _UNTIMED not in self._arrangement.notes:
            self._told(_UNTIMED)

    def _tell_error(self, log: Path, evidence: Evidence) -> None:
        """Tell the last error of a run's log, of the first run whose log has one, and what to do about it where that is known."""
        error = None if self._has_told_error else last_error(self._arrangement.masked(log.read_text(errors="replace")))
        if error:
            self._has_told_error = True
            advice = self._options.application.hint(error, evidence)
            self._told(f"The last error in {log}: {error}{advice}")

    def _write(self, strategy: str, number: int, console: str) -> None:
        """Write the run's files, and all runs of the strategy so far as one report."""
        out, runs = self._options.out, self._runs[strategy]
        write_text(out / f"{strategy}.{number}.json", artillery_json.to_json(runs[-1].report) + "\n")
        write_text(out / f"{strategy}.{number}.txt", console)
        write_text(out / f"{strategy}.json", artillery_json.to_json(merge([each.report for each in runs])) + "\n")

    def _note(self, served: Served) -> None:
        evidence = Evidence.read(served.program.evidence)
        first = not self._reads
        self._reads.update(dict.fromkeys(evidence.read_variables))
        if not first:
            return
        self._driver = next((each["driver"] for each in evidence.of("engine") if "driver" in each), self._driver)
        pools = sorted({str(each["pool"]) for each in evidence.of("lent")})
        self._say(
            f"The database given is used. Variables read: {', '.join(self._reads) or 'none'}. Pool: {', '.join(pools)}"
        )
        if evidence.is_factory:
            name = self._options.application.name
            self._told(f"{name} is a factory: it was called, as if {name}() had been given.")

    def _told(self, note: str) -> None:
        """Say a note, and keep it for the page."""
        self._arrangement.notes.append(note)
        self._say(note)

    def _settings(self) -> dict[str, str]:
        """The settings that were used, with no larger a pool than a process may open."""
        settings, most = self._options.settings, self._arrangement.databases.most
        used = _within(parameters("queue", settings), most)
        return {**settings, "DB_POOL_SIZE": used["pool_size"], "DB_POOL_MAX_OVERFLOW": used["max_overflow"]}

    def given(self) -> dict[str, Any]:
        """What was run, without passwords."""
        options, masked = self._options, self._arrangement.masked
        return {
            "application": options.application.name,
            "script": options.script,
            # A command of the user's own has as many processes as it says itself.
            "servers": None if options.application.server else options.servers,
            "server": masked(shown_command(options.application.server or "")) or None,
            "rounds": options.rounds,
            "settings": self._settings(),
            # Without their templates, which may hold a password.
            "url_variables": [re.sub("=.*", "=", text, flags=re.DOTALL) for text in options.application.url_variables],
            "driver": self._driver,
            "variables_read": list(self._reads),
        }

    def page(self, ending: Ending) -> Page:
        """The comparison so far."""
        return own_app_page(
            self.given(),
            [OwnAppResult(name, tuple(runs)) for name, runs in self._runs.items() if runs],
            self._arrangement.notes,
            self._arrangement.crossing,
            partial=ending.is_early,
            error=ending.told(self._arrangement.masked),
        )


def own_script(options: OwnAppOptions, url: str, phase: Mapping[str, object] | None = None) -> Script:
    """The script for a target, with its own phases or with a single one. Raises ScriptErrors, and OSError for its file."""
    return local_script(options.script, url, options.application.folder, phase, options.script_options)
