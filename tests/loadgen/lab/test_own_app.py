"""Somebody else's application under each strategy, and the comparison of pools under saturation."""

import json
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from loadgen.lab import fairness
from loadgen.lab.evidence import Crossing, Fairness
from loadgen.lab.own_app import chosen_settings, parameters
from loadgen.lab.own_app_findings import OwnAppResult, OwnAppRun, line_for_production, own_app_page, refusal, verdict
from loadgen.lab.stack import StackError
from reports.formats.artillery_json import from_json
from reports.model import Period, Report
from reports.sketch import Sketch
from reports.writers.output import STYLES, written
from tests.support.paths import EXAMPLES
from tests.support.sample_reports import report

SHOP = EXAMPLES / "shop"
LOADGEN = str(Path(sys.executable).with_name("loadgen"))
SCRIPT = """
config:
  target: http://127.0.0.1:8000
  phases: [{duration: 1, arrivalRate: 30}]
scenarios:
  - flow:
      - post: {url: /orders, json: {product: "{{ $randomNumber(1, 100) }}"}, capture: {json: $.id, as: order}}
      - get: {url: "/products/{{ $randomNumber(1, 100) }}"}
"""


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_an_application_with_its_own_app_and_db_runs_under_each_strategy(tmp_path):
    """Its modules are called app and db, like two of ours; nothing in it knows of pools."""
    (tmp_path / "short.yml").write_text(SCRIPT)
    out = tmp_path / "out"
    command = [
        LOADGEN,
        "lab",
        "--app",
        "app:app",
        "--script",
        tmp_path / "short.yml",
        "--servers",
        "2",
        "--rounds",
        "1",
    ]
    command += ["--out", out]
    done = subprocess.run(command, cwd=SHOP, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads((out / "summary.json").read_text())["strategies"]
    assert list(found) == ["own", "null", "queue", "fair"]
    for strategy, figures in found.items():
        total = from_json((out / f"{strategy}.json").read_text()).aggregate
        assert total.counters["http.codes.201"] > 0
        assert figures["connect mean (ms)"] is not None
        assert strategy in done.stdout
        assert f" {strategy} |" in (out / "summary.md").read_text()
        assert f"<h3>Generator: {strategy}</h3>" in (out / "index.html").read_text()
    assert found["null"]["connect mean (ms)"] > found["fair"]["connect mean (ms)"]
    assert found["fair"]["failed"] == found["queue"]["failed"] == 0
    assert not list(SHOP.glob("runs"))


GIVEN = {
    "application": "shop:app",
    "script": "load.yml",
    "servers": 3,
    "rounds": 2,
    "settings": {"DB_POOL_SIZE": "10", "DB_POOL_MAX_OVERFLOW": "0", "DB_POOL_TIMEOUT": "5"},
    "variables_read": ["DATABASE_URL"],
}


def result(strategy, *seeds):
    return OwnAppResult(strategy, tuple(OwnAppRun(report(seed), 7, 12.0, 3.0, 1.5) for seed in seeds))


@pytest.mark.parametrize("style", STYLES)
def test_every_format_compares_the_strategies(style):
    results = [result("null", 0, 1), result("fair", 2, 3)]
    text = written(own_app_page(GIVEN, results, ["A note."], Crossing(0.1, {0.0: 0.123}), partial=True), style)
    for fact in (
        "shop:app",
        "null",
        "fair",
        "backends at peak",
        "answered well",
        "artial",
        "pool wait p99 (ms)",
        "DB_POOL_SIZE",
        "0.123",
        "A note.",
    ):
        assert fact in text


def test_without_a_good_answer_the_page_says_why_and_recommends_nothing():
    failed = OwnAppResult("fair", (OwnAppRun(Report(Period(0, {"http.requests": 4, "http.codes.500": 4})), 7, 12.0),))
    page = own_app_page(GIVEN, [failed], [], None, partial=False, error="shop:app: no table")
    text = written(page, "text")
    assert page.title == "No request was answered well (fair)." and "shop:app: no table" in text
    assert "plugin=poolbench" not in text


def test_what_was_measured_before_an_error_is_told_with_it():
    some = OwnAppResult("own", (OwnAppRun(Report(Period(0, {"http.requests": 4, "http.codes.200": 3})), 7, 12.0),))
    page = own_app_page(GIVEN, [some], [], None, partial=True, error="shop:app: no pool without a size")
    text = written(page, "text")
    assert "Partial: it was ended by an error." in text and "no pool without a size" in text
    assert "own: 1 of 4 requests failed." in text
    assert page.data["error"] == "shop:app: no pool without a size"


def test_a_strategy_is_recommended_only_where_it_is_measurably_better():
    said, best = verdict([result("own", 0, 1), result("fair", 2, 3)])
    assert best == "own"
    assert said.text.startswith("No strategy is measurably better than own")


def test_the_line_for_production_is_a_url_with_the_pool():
    code = line_for_production("fair", GIVEN["settings"])
    assert "?plugin=poolbench&pool=fair&pool_size=10&max_overflow=0&pool_timeout=5" in code.text
    assert "pool_size" not in line_for_production("null", GIVEN["settings"]).text
    assert line_for_production("own", GIVEN["settings"]) is None


def test_the_line_for_production_has_the_applications_variables_and_driver():
    whole = line_for_production(
        "fair", {**GIVEN["settings"], "DB_POOL_MIN": "2"}, ["ORDERS_URL", "AUDIT_URL"], "psycopg"
    )
    assert [line[:31] for line in whole.text.splitlines()] == [
        "ORDERS_URL='postgresql+psycopg:",
        "AUDIT_URL='postgresql+psycopg:/",
    ]
    assert "min_size=2" in whole.text
    parts = line_for_production("null", GIVEN["settings"], ["DB_HOST={host}", "DB_NAME={database}"])
    assert parts.text == "?plugin=poolbench&pool=null"
    assert "DB_HOST, DB_NAME" in parts.caption


AT = "plugins.metrics-by-endpoint."


@pytest.mark.parametrize(
    ("counters", "told"),
    [
        (
            {"http.codes.200": 28, "http.codes.405": 9, "errors.ETIMEDOUT": 3, f"{AT}/add.codes.405": 9,
             f"{AT}/.codes.200": 28, f"{AT}/slow.errors.ETIMEDOUT": 3},
            "12 of 40 requests failed (405 at /add: 9, ETIMEDOUT: 3).",
        ),
        ({"http.codes.500": 40}, "40 of 40 requests failed (500: 40)."),
        (
            {"http.codes.200": 20, "http.codes.500": 20, f"{AT}named.codes.500": 5, f"{AT}named.codes.200": 9},
            "20 of 40 requests failed (500: 15, 500 at named: 5).",
        ),
        (
            {"http.codes.500": 20, "http.codes.503": 10, "http.codes.404": 8, "errors.ETIMEDOUT": 2},
            "40 of 40 requests failed (500: 20, 503: 10, 404: 8 and 1 other kind).",
        ),
        ({"http.codes.200": 30}, "10 of 40 requests failed."),
    ],
    ids=["endpoints", "no endpoints", "some endpoints", "four kinds", "no answer"],
)  # fmt: skip
def test_what_failed_is_told_with_its_endpoints(counters, told):
    failing = OwnAppResult("own", (OwnAppRun(Report(Period(0, {"http.requests": 40, **counters})), 7, 12.0),))
    text = written(own_app_page(GIVEN, [failing], [], None, partial=False), "text")
    assert f"own: {told}" in " ".join(text.split())


def answered(counters, held_ms=()):
    sketches = {"server.db": Sketch.of(held_ms)} if held_ms else {}
    return (OwnAppRun(Report(Period(0, {"http.requests": 40, **counters}, sketches=sketches)), 7, 12.0),)


def test_strategies_under_which_the_requests_were_refused_are_not_compared():
    refused = {"http.codes.200": 10, "http.codes.404": 30, f"{AT}/none.codes.404": 30}
    results = [OwnAppResult(name, answered(refused)) for name in ("own", "fair")]
    page = own_app_page(GIVEN, results, [], None, partial=False)
    text = " ".join(written(page, "text").split())
    assert page.title.startswith("No comparison is possible: 75 % of the requests or more were answered with")
    assert "404 at /none: 30" in text and "no pool causes" in text and "plugin=poolbench" not in text
    # What only one strategy refuses may be its fault.
    results = [OwnAppResult("own", answered(refused)), OwnAppResult("fair", answered({"http.codes.200": 40}))]
    assert "no pool causes" not in written(own_app_page(GIVEN, results, [], None, partial=False), "text")


@pytest.mark.parametrize(
    ("kinds", "told"),
    [
        ({"errors.ERR_SOCKET_TIMEOUT": 30}, "lower the script's rate"),
        ({"http.codes.503": 30}, "Look at the servers' logs"),
    ],
)
def test_strategies_under_which_most_requests_failed_are_not_compared(kinds, told):
    failed = answered({"http.codes.200": 10, **kinds})
    page = own_app_page(GIVEN, [OwnAppResult(name, failed) for name in ("own", "fair")], [], None, partial=False)
    text = " ".join(written(page, "text").split())
    assert page.title.startswith("No comparison is possible: 75 % of the requests or more failed under every strategy.")
    assert told in text and "plugin=poolbench" not in text
    # Under one of them, most succeed.
    results = [OwnAppResult("own", failed), OwnAppResult("fair", answered({"http.codes.200": 40}))]
    assert "No comparison" not in own_app_page(GIVEN, results, [], None, partial=False).title


def test_the_refusals_of_a_single_run_are_told_from_a_twentieth_of_its_requests_on():
    told = refusal([Report(Period(0, {"http.requests": 40, "http.codes.429": 4}))])
    assert told.startswith("10 % of the requests were answered with a status of 4xx") and "a limit on requests" in told
    assert refusal([Report(Period(0, {"http.requests": 40, "http.codes.404": 1, "http.codes.500": 39}))]) == ""


@pytest.mark.parametrize(
    ("held_ms", "told"),
    [
        ((0, 0, 0, 2.5), "75 % of the answered requests or more"),
        ((0, 0), "100 % of the answered requests"),
        ((0, 2.5, 2.5), ""),
        ((), ""),
    ],
)
def test_requests_that_use_no_connection_tell_nothing_of_the_pool(held_ms, told):
    results = [OwnAppResult(name, answered({"http.codes.200": 40}, held_ms)) for name in ("own", "fair")]
    text = " ".join(written(own_app_page(GIVEN, results, [], None, partial=False), "text").split())
    assert (f"Under every strategy, {told} had used no connection when their answer began" in text) is bool(told)


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--app", "app:app"], "--script"),
        (["--app", "app:app", "--script", "missing.yml"], "missing.yml"),
        (["--app", "app:app", "--script", "load.yml", "--strategies", "magic"], "magic"),
        (["--app", "app:app", "--script", "load.yml", "--only", "B.3"], "--only does not go with --app"),
        (["--rounds", "3"], "--rounds goes with --app"),
        (["--app", "no_such_module:app", "--script", "load.yml", "--strategies", "null"], "no_such_module"),
    ],
)
def test_a_mistake_is_one_clear_line(tmp_path, arguments, told):
    command = [LOADGEN, "lab", *arguments, "--out", tmp_path / "out"]
    done = subprocess.run(command, cwd=SHOP, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    errors = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1
    assert told in errors[0]
    assert "Traceback" not in done.stderr


def test_settings_become_the_plugins_parameters_where_the_strategy_knows_them():
    settings = chosen_settings({"DB_POOL_SIZE": "7", "DB_POOL_MIN": "2", "OTHER": "x"})
    assert settings == {
        "DB_POOL_SIZE": "7", "DB_POOL_MAX_OVERFLOW": "0", "DB_POOL_TIMEOUT": "5", "DB_POOL_MIN": "2",
    }  # fmt: skip
    with pytest.raises(StackError, match="DB_POOL_SIZE=banana in the environment: must be a whole number"):
        chosen_settings({"DB_POOL_SIZE": "banana"})
    assert chosen_settings({"DB_POOL_SIZE": " "})["DB_POOL_SIZE"] == "10"
    assert parameters("null", settings) == {}
    assert parameters("queue", settings) == {"pool_size": "7", "max_overflow": "0", "pool_timeout": "5"}
    assert parameters("fair", settings)["min_size"] == "2"


@pytest.mark.parametrize(
    ("url", "joined"),
    [("postgresql://h/d", "postgresql+psycopg2://h/d?plugin=poolbench&pool=fair&pool_size=3"),
     ("postgresql://h/d?a=b", "postgresql+psycopg2://h/d?a=b&plugin=poolbench&pool=fair&pool_size=3")],
)  # fmt: skip
def test_the_pool_is_chosen_in_the_url(url, joined):
    assert fairness.with_pool(url, "fair", pool_size=3) == joined


@pytest.mark.parametrize(("served", "jain"), [((5, 5, 5, 5), 1.0), ((20, 0, 0, 0), 0.25), ((0, 0), 0.0)])
def test_jains_index(served, jain):
    cell = Fairness("fair", len(served), Report(Period(0)), 1.0, Sketch.of([1]), Sketch.of([1]), served)
    assert cell.jain == pytest.approx(jain)
    assert cell.unserved == served.count(0)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_queue_and_fair_are_compared_in_turns(postgres, tmp_path, monkeypatch):
    monkeypatch.setattr(fairness, "USERS", (20,))
    monkeypatch.setattr(fairness, "_ROUND_S", 0.5)
    cells = list(fairness.run(postgres.url, tmp_path, 2, lambda _: None, Random(1)))
    assert [(c.strategy, c.users) for c in cells] == [("queue", 20), ("fair", 20)]
    for cell in cells:
        assert len(cell.served) == 40
        assert cell.total_ms.quantile(0.5) > 5
        assert cell.wait_ms.count == cell.total_ms.count
        assert 50 < cell.requests_per_second < 2100
