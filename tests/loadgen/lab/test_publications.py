"""Publications as data: their format, their claims' verdicts, and their experiments on a real PostgreSQL."""

import json
import re
from copy import deepcopy
from dataclasses import replace
from math import inf
from pathlib import Path
from random import Random

import psutil
import psycopg2
import pytest
from click.testing import CliRunner

from benchmarks import publications as benchmark
from db.embedded import temporary_postgres
from loadgen.commands.lab import lab
from loadgen.lab import publication_run, publication_turn
from loadgen.lab.claim import NOT, NOT_JUDGED, PARTLY, REPRODUCED, UNMEASURED
from loadgen.lab.evidence import Evidence, Measurement
from loadgen.lab.findings import lab_page
from loadgen.lab.publication import FIGURES, PerCore
from loadgen.lab.publication_claims import key, publication_claims
from loadgen.lab.publication_file import SETTINGS, known, parse
from loadgen.lab.stack import query
from loadgen.lab.turn_process import figures_of
from loadgen.script.model import ScriptErrors
from reports.writers.output import STYLES, written
from tests.support.server_process import wait_until

KNOWN = known()
MINE = {
    "name": "mine",
    "title": "My own",
    "source": {"author": "me", "title": "notes", "year": 2024, "address": "https://example.org/"},
    "published": [{"figure": "loans", "words": "twice as many"}],
    "scale": "The published size.",
    "rounds": 2,
    "experiments": {
        "a": {"kind": "borrowers", "title": "two", "pool": "queue", "size": 2, "borrowers": 4, "hold_ms": 5, "seconds": 0.3},
        "b": {"kind": "borrowers", "title": "one", "pool": "fair", "size": 1, "borrowers": 4, "hold_ms": 5, "seconds": 0.3},
        "c": {"kind": "requests", "title": "tasks", "pool": "queue", "threads": 2, "requests": 4, "statement": "SELECT 1"},
        "d": {"kind": "clients", "title": "clients", "clients": 2, "statement": "SELECT 1", "seconds": 0.3},
    },
    "claims": [
        {
            "id": "twice",
            "text": "two connections serve twice as much as one",
            "published": "2 times",
            "checks": [
                {"figure": "per_second", "of": "a", "against": "b", "reproduced": [1.5, 2.5], "partly": [1.2, None]},
            ],
        }
    ],
}  # fmt: skip
"""A whole file, as small as it can be."""


def changed(path, value):
    """The file with one part changed; KeyError as the value: with the part left out."""
    document = deepcopy(MINE)
    inside = document
    *way, last = path
    for step in way:
        inside = inside[step]
    if value is KeyError:
        del inside[last]
    else:
        inside[last] = value
    return document


def faults(document):
    """The lines that refuse a document; empty if it is taken."""
    try:
        parse("mine.json", json.dumps(document, indent=1))
    except ScriptErrors as errors:
        return str(errors).splitlines()
    return []


def test_the_smallest_file_is_taken_with_its_defaults():
    assert not faults(MINE)
    publication = parse("mine.json", json.dumps(MINE))
    assert publication.experiments[0].settings(full=False)["timeout_s"] == 30
    assert publication.experiments[0].settings(full=False)["idle"] == 2
    assert publication.connections(full=False) == 5


@pytest.mark.parametrize("name", KNOWN)
def test_the_tools_own_files_are_whole_and_are_called_as_their_publication(name):
    publication = KNOWN[name]
    folder = Path(publication_run.__file__).parent / "publications"
    assert (folder / f"{name}.yml").exists()
    assert publication.published and publication.claims
    # A brief run of each stays within a minute.
    assert publication.expected_s(full=False) <= 60


def required_parts():
    """Each part that a file must have, by its path."""
    for part in ("name", "title", "scale", "source", "published", "experiments", "claims"):
        yield (part,)
    yield from (("source", part) for part in MINE["source"])
    yield from (("published", 0, part) for part in MINE["published"][0])
    yield from (("claims", 0, part) for part in ("id", "text", "published", "checks"))
    yield from (("claims", 0, "checks", 0, part) for part in ("figure", "of", "reproduced"))
    for name, experiment in MINE["experiments"].items():
        for part in ("kind", "title", *(n for n, f in SETTINGS[experiment["kind"]].items() if f.required)):
            yield ("experiments", name, part)


def dotted(path):
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def is_one_line_about(lines, path):
    (line,) = lines
    return line.startswith("mine.json:") and f": {dotted(path)}: " in line


@pytest.mark.parametrize("path", [*required_parts()], ids=dotted)
def test_a_missing_part_is_one_line_with_file_and_field(path):
    lines = faults(changed(path, KeyError))
    assert is_one_line_about(lines, path), lines


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("name",), "My Own", "must be a name"),
        (("name",), "index", "is the name of the page of all results"),
        (("title",), 5, "must be a text"),
        (("title",), "  ", "must be a text"),
        (("rounds",), 0, "must be a whole number from 1 to 100"),
        (("rounds",), True, "must be a whole number"),
        (("rounds",), 2.5, "must be a whole number"),
        (("source",), "me", "must have the fields author, title, year, address"),
        (("source", "year"), "2024", "must be a whole number from 1960 to 2100"),
        (("source", "address"), "example.org", "must be an address"),
        (("published",), [], "must be a list of one item at least"),
        (("published", 0, "words"), 2, "must be a text"),
        (("setup",), ["SELECT 1", 5], "must be a text"),
        (("experiments",), [], "must have one experiment at least"),
        (("experiments", "a"), "x", "must be one of borrowers, requests, clients"),
        (("experiments", "a", "kind"), "borrower", "must be one of borrowers, requests, clients"),
        (("experiments", "a", "pool"), "hikari", "must be one of queue, fair, null, psycopg_pool"),
        (("experiments", "a", "size"), -1, "must be a whole number from 1 to 10000"),
        (("experiments", "a", "size"), {"per_cores": 1}, "must be a number, or per_core and plus"),
        (("experiments", "a", "seconds"), "1s", "must be a number from 0.1 to 600"),
        (("experiments", "a", "timeout_s"), 1e99, "must be a number from 0.1 to 600"),
        (("experiments", "a", "timeout_s"), 10**400, "must be a number from 0.1 to 600"),
        (("experiments", "a", "sizes"), 5, "did you mean `size`?"),
        (("experiments", "a", "statement"), "SELECT 1", "must have either statement or hold_ms"),
        (("experiments", "a", "loans"), 5, "must have either seconds or loans"),
        (("experiments", "a", "full"), {"loans": 5}, "must have seconds, as the experiment has"),
        (("experiments", "a", "full"), {"size": "x"}, "must be a whole number"),
        (("experiments", "c", "mode"), "threads", "is no field of it"),
        (("experiments", "d", "driver"), "libpq", "must be one of psycopg2, psycopg, asyncpg, pgbench"),
        (("claims",), {}, "must be a list of one item at least"),
        (("claims", 0, "about_load"), "yes", "must be true or false"),
        (("claims", 0, "checks", 0, "of"), "aa", "did you mean `a`?"),
        (("claims", 0, "checks", 0, "figure"), "speed", "a does not measure speed, but per_second"),
        (("claims", 0, "checks", 0, "reproduced"), [2], "must be two numbers"),
        (("claims", 0, "checks", 0, "reproduced"), [2, 1], "must be two numbers"),
        (("claims", 0, "checks", 0, "reproduced"), [0, 10**400], "must be two numbers"),
        (("claims", 0, "checks", 0, "reproduced"), [0, float("inf")], "must be two numbers"),
        (("claims", 0, "checks", 0, "reproduced"), [None, None], "must be two numbers"),
        (("claims", 0, "checks", 0, "partly"), [1.6, None], "must hold the range of reproduced"),
        (("claims", 0, "judged_if"), [{"figure": "failed", "of": "a"}], "is missing"),
    ],
)  # fmt: skip
def test_a_wrong_part_is_one_line_that_says_what_it_must_be(path, value, said):
    (line,) = faults(changed(path, value))
    assert said in line
    assert line.startswith("mine.json:")
    assert f": {dotted(path[:2])}" in line


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"pool": "psycopg_pool", "overflow": 5}, "psycopg_pool has no overflow"),
        ({"pool": "psycopg_pool", "driver": "psycopg2"}, "must be psycopg, the driver of psycopg_pool"),
    ],
)
def test_what_a_pool_does_not_have_is_refused(more, said):
    (line,) = faults(changed(("experiments", "a"), {**MINE["experiments"]["a"], **more}))
    assert said in line


def test_every_fault_of_a_file_is_told_at_once():
    document = changed(("title",), 5)
    document["source"]["year"] = 1
    document["experiments"]["a"]["size"] = 0
    assert len(faults(document)) == 3


def test_a_text_that_is_no_file_of_the_format_is_one_line():
    for text in ("", "[]", "just words", "a: [", "\t- x"):
        with pytest.raises(ScriptErrors) as caught:
            parse("mine.yml", text)
        assert len(str(caught.value).splitlines()) == 1


def test_numbers_by_cores_follow_the_machine():
    assert PerCore(2, 1).on(2) == 5
    assert PerCore(2.4, 0).on(2) == 5
    assert PerCore(0, -3).on(8) == 1


# Verdicts on made-up evidence


def evidence_on(publication, values, *, others_share=0.0, rounds=None):
    """Evidence in which every experiment has the same figures, but for those given by (experiment, figure)."""

    def measured(given):
        found = {}
        for experiment in publication.experiments:
            figures = {name: given.get((experiment.name, name), 1.0) for name in experiment.figures}
            found[key(publication, experiment.name)] = Measurement(experiment.title, figures, others_share)
        return found

    each = [measured(given) for given in rounds or [values]]
    together = {
        place: publication_run.together(each[0][place].title, [one[place] for one in each]) for place in each[0]
    }
    return Evidence(
        publications=(publication,),
        measurements=together,
        measurement_rounds={place: tuple(one[place] for one in each) for place in each[0]},
    )


def finding(publication, claim_id, evidence):
    return next(c for c in publication_claims(publication) if c.id == f"{publication.name}.{claim_id}").finding(
        evidence
    )


def kept(claim, values):
    """The values, with figures more for which all conditions of a claim hold."""
    found = dict(values)
    for condition in claim.judged_if:
        quantity, (low, high) = condition.quantity, condition.between
        under = found.get((quantity.against, quantity.figure), 1.0) if quantity.against else 1.0
        found.setdefault((quantity.of, quantity.figure), (low if low != -inf else 0.9 * high) * under)
    return found


def cases():
    """Every check of the tool's own publications, with values inside and outside its ranges, on both sides."""
    for publication in KNOWN.values():
        for claim in publication.claims:
            for check in claim.checks:
                (low, high), (least, most) = check.reproduced, check.partly
                inside = low if low != -inf else high
                yield publication, claim, check, inside, {REPRODUCED}
                if high != inf:
                    yield publication, claim, check, high, {REPRODUCED}
                    yield publication, claim, check, high * 1.001 + 1e-6, {PARTLY, NOT}
                if most != inf:
                    yield publication, claim, check, most * 1.001 + 1e-6, {NOT}
                if low > 0:
                    yield publication, claim, check, low * 0.999, {PARTLY, NOT}
                if least > 0:
                    yield publication, claim, check, least * 0.999, {NOT}


@pytest.mark.parametrize(("publication", "claim", "check", "value", "expected"), [*cases()])
def test_verdicts_are_two_sided(publication, claim, check, value, expected):
    quantity = check.quantity
    conditions = {(c.quantity.of, c.quantity.figure): c.between[0] for c in claim.judged_if if not c.quantity.against}
    under = conditions.get((quantity.against, quantity.figure), 1.0) if quantity.against else 1.0
    values = {(quantity.against, quantity.figure): under, (quantity.of, quantity.figure): value * under}
    found = finding(publication, claim.id, evidence_on(publication, kept(claim, values)))
    # Another check of the same claim sees figures that are all alike, which every own claim of several checks accepts.
    assert found.verdict in expected, found


def test_the_worst_of_several_checks_counts():
    publication = KNOWN["two-per-core"]
    values = {("formula", "per_second"): 100.0, ("one", "per_second"): 50.0, ("eight-per-core", "per_second"): 100.0}
    whole = {**values, ("one-for-each-borrower", "per_second"): 100.0}
    assert finding(publication, "best-throughput", evidence_on(publication, whole)).verdict == REPRODUCED
    worse = {**values, ("one-for-each-borrower", "per_second"): 110.0}
    assert finding(publication, "best-throughput", evidence_on(publication, worse)).verdict == PARTLY
    worst = {**values, ("one-for-each-borrower", "per_second"): 200.0}
    assert finding(publication, "best-throughput", evidence_on(publication, worst)).verdict == NOT


SPIKE = KNOWN["hikaricp-spike"]


def test_a_busy_machine_is_not_judged():
    found = finding(SPIKE, "few-opened", evidence_on(SPIKE, {("fair", "connections"): 5}, others_share=0.2))
    assert found.verdict == NOT_JUDGED
    assert "the machine was busy" in found.why


def test_rounds_that_disagree_are_not_judged():
    rounds = [{("fair", "connections"): n} for n in (5, 5, 50)]
    found = finding(SPIKE, "few-opened", evidence_on(SPIKE, {}, rounds=rounds))
    assert found.verdict == NOT_JUDGED
    assert "the rounds disagree" in found.why
    rounds = [{("fair", "connections"): n} for n in (5, 6, 7)]
    found = finding(SPIKE, "few-opened", evidence_on(SPIKE, {}, rounds=rounds))
    assert found.verdict == REPRODUCED
    assert "median 6.0, 5.0 to 7.0" in found.measured


def test_a_condition_that_does_not_hold_is_not_judged():
    publication = KNOWN["small-pool"]
    found = finding(publication, "no-slower", evidence_on(publication, {("large", "time_mean_ms"): 3.0}))
    assert found.verdict == NOT_JUDGED
    assert "judged only if 20 ms or more" in found.why


def test_a_ratio_to_nothing_is_not_judged():
    publication = KNOWN["connection-per-transaction"]
    found = finding(publication, "two-hundred-times", evidence_on(publication, {("pgbench-new", "per_second"): 0.0}))
    assert found.verdict == NOT_JUDGED


def test_without_an_experiment_a_claim_is_not_measured():
    whole = evidence_on(SPIKE, {})
    without = replace(whole, measurements={k: m for k, m in whole.measurements.items() if not k.endswith(".fair")})
    assert finding(SPIKE, "few-opened", without).verdict == UNMEASURED
    failed = {**whole.measurements, "hikaricp-spike.fair": Measurement("FairPool", {}, partial=True)}
    assert finding(SPIKE, "few-opened", replace(whole, measurements=failed)).verdict == UNMEASURED


@pytest.mark.parametrize("style", STYLES)
def test_a_result_has_claims_figures_and_source_in_every_format(style):
    evidence = replace(evidence_on(SPIKE, {("fair", "connections"): 5}), environment={"cpu": "a CPU"})
    text = written(lab_page(evidence), style)
    for said in (
        "Brett Wooldridge",
        "5 connections (HikariCP)",
        "reproduced",
        "psycopg_pool",
        "Welcome-To-The-Jungle.md",
    ):
        assert said in text
    assert "two publications" not in text


def test_the_page_of_the_documentation_names_every_setting_figure_and_publication():
    page = benchmark.PAGE.read_text()
    for kind, settings in SETTINGS.items():
        assert f"`{kind}`" in page
        for name in (*settings, *FIGURES[kind]):
            assert re.search(rf"`{name}\b", page), name
    assert all(f"| {name} |" in page for name in KNOWN)


def test_the_page_takes_the_table_of_a_session():
    evidence = replace(evidence_on(SPIKE, {("fair", "connections"): 5}), environment={"cpu": "a CPU"})
    page = benchmark.filled(benchmark.PAGE.read_text(), json.loads(written(lab_page(evidence), "json")))
    assert f"| hikaricp-spike | {SPIKE.claims[0].text} | 5 connections (HikariCP) | 5 | reproduced |" in page
    assert benchmark.filled(page, json.loads(written(lab_page(evidence), "json"))) == page


# By the command


def run(*arguments):
    return CliRunner().invoke(lab, arguments)


def test_list_names_everything_one_line_each():
    done = run("--list")
    assert done.exit_code == 0
    lines = {line.split()[0]: line for line in done.stdout.splitlines() if line.strip()}
    assert {"A", "B", "B.3.c1", "C.league", "D.rtt", "P", "M", "publications", *KNOWN} <= lines.keys()
    assert {row["name"] for row in json.loads(run("--list", "--format", "json").stdout)["names"]} > KNOWN.keys()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--only", "missing.yml"), "missing.yml: No such file or directory"),
        (("--only", "hikari-spike"), "publication 'hikari-spike'; loadgen lab --list names all"),
        (("--only", "hikaricp-spike", "--strategies", "fair"), "--strategies has no effect on publications"),
    ],
)
def test_bad_names_are_one_line_and_exit_code_2(arguments, said):
    done = run(*arguments)
    assert done.exit_code == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_bad_file_is_refused_with_its_lines_before_anything_runs(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(changed(("experiments", "a", "size"), 0), indent=1))
    done = run("--only", str(path), "--out", str(tmp_path / "out"))
    assert done.exit_code == 2
    assert f"{path}:" in done.stderr and "experiments.a.size: must be a whole number" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_users_file_may_not_have_the_name_of_another_publication(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(changed(("name",), "hikaricp-spike")))
    done = run("--only", f"hikaricp-spike,{path}")
    assert (done.exit_code, "two publications have the name hikaricp-spike" in done.stderr) == (2, True)


def test_a_driver_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr(publication_run, "find_spec", lambda name: None if name == "asyncpg" else object())
    missing = {e.name: publication_run.missing_module(e) for e in KNOWN["asyncpg-speed"].experiments}
    assert missing["asyncpg-rows"] == "asyncpg"
    assert missing["psycopg2-rows"] is None


# On a real PostgreSQL


@pytest.fixture(scope="module")
def database():
    with temporary_postgres(max_connections=120) as postgres:
        yield postgres.url


def briefest(publication):
    """The publication with a single round, and with as little time for each experiment as it can have."""

    def brief(experiment):
        values = dict(experiment.values)
        if values.get("seconds"):
            # pgbench has whole seconds, and opens its connections in them.
            values["seconds"] = 2 if values.get("driver") == "pgbench" else 0.3
        if "timeout_s" in values:
            values["timeout_s"] = min(values["timeout_s"], 1.0)
        return replace(experiment, values=values)

    return replace(publication, rounds=1, experiments=tuple(brief(e) for e in publication.experiments))


@pytest.mark.slow
@pytest.mark.parametrize("name", KNOWN)
def test_each_publication_runs_and_every_claim_finds_its_figures(name, database):
    publication, said = briefest(KNOWN[name]), []
    turns = dict(
        publication_run.run(publication, database, full=False, others_cpu_s=None, say=said.append, rng=Random(1))
    )
    assert not said
    for experiment in publication.experiments:
        if publication_run.missing_module(experiment) is None:
            assert turns[experiment.name].figures.keys() == experiment.figures.keys()
    measured = {key(publication, each): found for each, found in turns.items()}
    evidence = Evidence(publications=(publication,), measurements=measured)
    for claim in publication_claims(publication):
        found = claim.finding(evidence)
        assert found.verdict != UNMEASURED or "asyncpg" in found.why or "psycopg" in found.why
        assert found.verdict == UNMEASURED or found.brief


@pytest.mark.slow
@pytest.mark.parametrize("driver", ["psycopg2", "psycopg", "asyncpg"])
@pytest.mark.parametrize("connect", ["once", "each time"])
def test_every_driver_counts_all_rows(driver, connect, database):
    experiment = {**MINE["experiments"]["d"], "driver": driver, "connect": connect, "clients": 4,
                  "statement": "SELECT generate_series(1, 100)"}  # fmt: skip
    publication = parse("mine.json", json.dumps(changed(("experiments", "d"), experiment)))
    only = replace(publication, rounds=1, experiments=publication.experiments[3:])
    if publication_run.missing_module(only.experiments[0]):
        pytest.skip(f"{driver} is not installed")
    ((_, found),) = publication_run.run(only, database, full=False, others_cpu_s=None, say=print, rng=Random(1))
    assert found.figures["per_second"] > 0
    assert found.figures["rows_per_second"] == pytest.approx(100 * found.figures["per_second"])


@pytest.mark.slow
@pytest.mark.parametrize(("nested", "failed"), [(1, 0), (2, 1)])
def test_a_borrower_of_two_connections_never_gets_both_from_a_pool_of_one(nested, failed, database):
    document = changed(("experiments", "a"), {
        **MINE["experiments"]["a"], "size": 1, "borrowers": 1, "nested": nested, "timeout_s": 0.2, "seconds": 0.9})  # fmt: skip
    publication = parse("mine.json", json.dumps({**document, "rounds": 1}))
    only = replace(publication, experiments=publication.experiments[:1])
    ((_, found),) = publication_run.run(only, database, full=False, others_cpu_s=None, say=print, rng=Random(1))
    assert (found.figures["failed"], found.figures["connections"]) == (failed, 1)


@pytest.mark.slow
def test_a_statement_that_fails_is_told_and_its_claim_is_not_measured(database):
    publication = parse("mine.json", json.dumps(changed(("experiments", "c", "statement"), "SELECT nothing")))
    only = replace(publication, rounds=1, experiments=publication.experiments[2:3])
    ((_, found),) = publication_run.run(only, database, full=False, others_cpu_s=None, say=print, rng=Random(1))
    assert found.figures["failed"] == 1


@pytest.mark.parametrize("first", [0, 3])
def test_clients_who_get_no_connection_are_told_and_not_counted_as_idle(first):
    """All of them where nothing listens; else those beyond the first few."""
    opened = []

    class Limited(publication_turn.Network):
        def open(self, kind=None):
            opened.append(kind)
            return super().open(kind) if len(opened) > first else object()

    values = {
        "driver": "psycopg2",
        "clients": 4,
        "connect": "once",
        "statement": "SELECT 1",
        "seconds": 0.1,
        "hold_ms": 0,
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(publication_turn, "Network", Limited)
        with pytest.raises(psycopg2.OperationalError):
            publication_turn.clients("postgresql://127.0.0.1:1/nowhere", values)


@pytest.mark.slow
def test_a_setup_statement_may_have_per_cent_signs(database):
    setup = "CREATE TABLE tens AS SELECT i % 10 AS i FROM generate_series(1, 20) i WHERE i::text LIKE '1%'"
    publication = parse("mine.json", json.dumps({**MINE, "setup": [setup], "rounds": 1}))
    only = replace(publication, experiments=publication.experiments[3:])
    ((_, found),) = publication_run.run(only, database, full=False, others_cpu_s=None, say=print, rng=Random(1))
    assert found.figures["failed"] == 0
    assert query(database, "SELECT count(*) FROM tens") == [(11,)]


@pytest.mark.slow
def test_a_turn_that_is_ended_leaves_no_pgbench(database):
    values = {"driver": "pgbench", "clients": 1, "connect": "once", "statement": "SELECT 1", "seconds": 20}
    said = figures_of("loadgen.lab.publication_turn", {"kind": "clients", "url": database, "values": values}, 2)
    assert said == "did not end within 2 s"
    wait_until(
        lambda: not [each for each in psutil.process_iter(["cmdline"]) if database in (each.info["cmdline"] or [])],
        "pgbench has ended",
    )


@pytest.mark.slow
def test_a_users_file_runs_by_its_path_and_leaves_a_page(tmp_path):
    path, out = tmp_path / "mine.yml", tmp_path / "out"
    path.write_text(json.dumps(MINE))
    done = run("--only", str(path), "--out", str(out), "--format", "json")
    assert done.exit_code == 0, done.stderr
    result = json.loads(done.stdout)
    assert [claim["id"] for claim in result["claims"]] == ["mine.twice"]
    assert len(result["publication-mine"]["experiments"]["a"]["rounds"]) == 2
    assert {"index.html", "mine.html", "summary.json", "summary.md"} <= {each.name for each in out.iterdir()}


def test_each_kind_of_experiment_has_figures():
    assert FIGURES.keys() == SETTINGS.keys()
