"""`loadgen run --rows`: a row for each request, from all workers, also of runs that end early or fill the disk."""

import csv
import json
import signal
import subprocess
import sys
import time

import pyarrow.parquet
import pytest
from click.testing import CliRunner

from loadgen.cli import cli
from loadgen.rows import COLUMNS
from tests.support.server_process import wait_until

INSTANTS = ("intended_ns", "started_ns", "written_ns", "first_byte_ns", "end_ns")


def script(folder, url, flow=None, *, users=6, **section):
    flow = flow or [
        {"get": {"url": "/a", "name": 'the "first",\nin two lines'}},
        {"post": {"url": "/b?x=1", "json": {"big": 1}}},
        {"get": {"url": "http://127.0.0.1:1/nothing"}},
    ]
    config = {"target": url, "phases": [{"duration": 1, "arrivalCount": users}]}
    path = folder / "script.json"
    path.write_text(json.dumps({"config": config, "scenarios": [{"name": "shop", "flow": flow}], **section}))
    return str(path)


def loadgen(*arguments):
    return CliRunner().invoke(cli, [str(a) for a in arguments])


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("workers", [1, 2])
def test_each_request_of_every_worker_is_a_row(tmp_path, serve, ok_answer, workers):
    began_ns = time.time_ns()
    done = loadgen(
        "run", script(tmp_path, serve(ok_answer()).url), "--rows", tmp_path / "rows.csv", "--workers", workers,
        "-o", tmp_path / "report.json",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    rows = rows_of(tmp_path / "rows.csv")
    assert list(rows[0]) == [name for name, _ in COLUMNS]
    counters = json.loads((tmp_path / "report.json").read_text())["aggregate"]["counters"]
    assert len(rows) == counters["http.requests"] == 18
    assert {row["worker"] for row in rows} == {str(n) for n in range(workers)}
    assert {row["scenario"] for row in rows} == {"shop"}
    first, second, lost = ([row for row in rows if word in row["url"]] for word in ("/a", "/b?x=1", ":1/nothing"))
    assert len(first) == len(second) == len(lost) == 6
    assert {(row["name"], row["method"], row["status"], row["body_bytes"]) for row in first} == {
        ('the "first",\nin two lines', "GET", "200", "2")
    }
    assert {(row["name"], row["method"]) for row in second} == {("", "POST")}
    assert {(row["status"], row["error"], row["first_byte_ns"]) for row in lost} == {("", "ECONNREFUSED", "")}
    for row in first:
        instants = [int(row[name]) for name in INSTANTS]
        assert instants == sorted(instants)
        assert began_ns < instants[0] < instants[-1] < time.time_ns()


def test_redirects_are_rows_and_the_sections_around_the_plan_are_not(tmp_path, serve):
    def answer(connection, head):
        redirect = b" /from " in head
        connection.sendall(
            b"HTTP/1.1 %s\r\nLocation: /to\r\nContent-Length: 0\r\n\r\n" % (b"302 Found" if redirect else b"200 OK")
        )

    flow = [{"get": {"url": "/from"}}]
    around = {"before": {"flow": [{"get": {"url": "/before"}}]}, "after": {"flow": [{"get": {"url": "/after"}}]}}
    path = script(tmp_path, serve(answer).url, flow, users=1, **around)
    assert loadgen("run", path, "--rows", tmp_path / "rows.csv").exit_code == 0
    seen = [(row["url"].rpartition("/")[2], row["status"]) for row in rows_of(tmp_path / "rows.csv")]
    assert seen == [("from", "302"), ("to", "200")]


def test_parquet_has_the_same_rows_with_types(tmp_path, serve, ok_answer):
    path = script(tmp_path, serve(ok_answer()).url)
    assert loadgen("run", path, "--rows", tmp_path / "rows.parquet", "--workers", 2).exit_code == 0
    table = pyarrow.parquet.read_table(tmp_path / "rows.parquet")
    assert [(field.name, str(field.type)) for field in table.schema] == list(COLUMNS)
    rows = table.to_pylist()
    assert len(rows) == 18
    assert sum(row["status"] == 200 and row["error"] is None for row in rows) == 12
    assert {row["name"] for row in rows} == {'the "first",\nin two lines', None}
    assert sorted(each.name for each in tmp_path.iterdir()) == ["rows.parquet", "script.json"]


def test_parquet_keeps_names_that_others_read_as_no_value(tmp_path, serve, ok_answer):
    words = ["NA", "null", "nan", "n/a", "#N/A", "1"]
    path = script(tmp_path, serve(ok_answer()).url, [{"get": {"url": "/", "name": word}} for word in words], users=1)
    assert loadgen("run", path, "--rows", tmp_path / "rows.parquet").exit_code == 0
    assert [row["name"] for row in pyarrow.parquet.read_table(tmp_path / "rows.parquet").to_pylist()] == words


def test_a_run_whose_end_fails_leaves_its_rows(tmp_path, serve, ok_answer):
    after = {"after": {"flow": [{"get": {"url": "http://127.0.0.1:1/"}}]}}
    path = script(tmp_path, serve(ok_answer()).url, users=2, **after)
    done = loadgen("run", path, "--rows", tmp_path / "rows.parquet")
    assert done.exit_code == 1
    assert "the after section failed: ECONNREFUSED" in done.stderr
    assert pyarrow.parquet.read_table(tmp_path / "rows.parquet").num_rows == 6


def test_parquet_that_cannot_be_written_leaves_the_rows_as_csv(tmp_path, serve, ok_answer):
    def answer(connection, _):
        (tmp_path / "rows.parquet").mkdir(exist_ok=True)
        connection.sendall(ok_answer())

    done = loadgen("run", script(tmp_path, serve(answer).url), "--rows", tmp_path / "rows.parquet")
    assert done.exit_code == 1
    said = f"Error: --rows: cannot write {tmp_path / 'rows.parquet'}: "
    assert any(line.startswith(said) for line in done.stderr.splitlines())
    assert len(rows_of(tmp_path / "rows.parquet.csv")) == 18


def test_without_the_library_parquet_is_one_clear_line(tmp_path, serve, ok_answer, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.delitem(sys.modules, "pyarrow.parquet")
    server = serve(ok_answer())
    done = loadgen("run", script(tmp_path, server.url), "--rows", tmp_path / "rows.parquet")
    assert done.exit_code == 1
    assert done.stderr == "Error: --rows: .parquet needs pyarrow, which is not installed: pip install '.[parquet]'\n"
    assert not server.heads


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("rows.txt", "must end in .csv or .parquet, not "),
        ("no/such/rows.csv", "cannot write "),
        ("no/such/rows.parquet", "cannot write "),
    ],
)
def test_a_file_that_cannot_be_made_is_told_before_the_run(tmp_path, serve, ok_answer, name, said):
    server = serve(ok_answer())
    done = loadgen("run", script(tmp_path, server.url), "--rows", tmp_path / name)
    assert done.exit_code == 1
    assert done.stderr.startswith(f"Error: --rows: {said}")
    assert not server.heads


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_full_disk_is_told_once_and_does_not_end_the_run(tmp_path, serve, ok_answer, workers):
    flow = [{"loop": [{"get": {"url": "/a"}}], "count": 200}]
    path = script(tmp_path, serve(ok_answer()).url, flow, users=10)
    code = (
        "import resource, sys; from loadgen.cli import cli\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)); cli(sys.argv[1:])"
    )
    arguments = ["run", "-q", path, "--rows", str(tmp_path / "rows.csv"), "--workers", workers]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(f"cannot write {tmp_path / 'rows.csv'}: File too large") == 1
    rows = rows_of(tmp_path / "rows.csv")
    assert 300 < len(rows) < 2000
    assert all(row["body_bytes"] == "2" for row in rows), "no row is cut"


@pytest.mark.slow
def test_an_interrupted_run_leaves_its_rows(start_process, tmp_path, serve, ok_answer):
    flow = [{"get": {"url": "/a"}}, {"think": 3}]
    path = script(tmp_path, serve(ok_answer()).url, flow)
    arguments = ["run", "-q", path, "--rows", str(tmp_path / "rows.parquet"), "--workers", "2"]
    process = start_process([sys.executable, "-m", "loadgen", *arguments])
    text = tmp_path / "rows.parquet.csv"
    wait_until(
        lambda: text.exists() and len(text.read_text().splitlines()) == 7,
        "the rows are there while the run goes on",
        30,
    )
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert pyarrow.parquet.read_table(tmp_path / "rows.parquet").num_rows == 6
