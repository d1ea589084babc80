"""loadgen doctor on applications with one disease each, on their cured twins, and on healthy ones."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from signal import SIGINT, SIGTERM
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from benchmarks.doctor import APPLICATIONS, HEALTHY, SICK, command, sick_line
from loadgen.cli import cli
from loadgen.lab.doctor import NothingSeenError, _begun, _collected, _count_lost, _count_serving, code_at
from loadgen.lab.doctor_findings import doctor_page
from loadgen.runner import stopping
from poolbench.findings import KINDS, Diagnosis
from poolbench.observed import LoanKey, LoanSum, Observed, RequestSum, total
from reports.model import Report
from reports.writers.output import written

LOADGEN = str(Path(sys.executable).with_name("loadgen"))


def diagnosed(tmp_path, name, seconds=8):
    """The result of the command for an application, as JSON, and its exit code. Stderr ends in the answer and the files."""
    done = subprocess.run(
        command(name, tmp_path, seconds), cwd=APPLICATIONS, capture_output=True, text=True, timeout=180, check=False
    )
    assert done.returncode in {0, 1}, done.stderr
    found = json.loads((tmp_path / "doctor.json").read_text())
    number = len(found["findings"])
    _, answer, result, files = done.stderr.splitlines()[-4:]
    assert answer.endswith(f"({number} finding{'s' * (number > 1)})") if number else "Nothing" in answer
    assert (result, files) == (f"The result is in {tmp_path / 'doctor.json'}", f"Everything is in {tmp_path}")
    return found, done.returncode


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_disease_is_named_with_its_line(tmp_path):
    found, code = diagnosed(tmp_path, "sick/calling_while_holding")
    first = found["findings"][0]
    assert code == 1
    assert (first["kind"], first["where"], first["endpoint"]) == (
        "work-while-holding", sick_line("sick/calling_while_holding"), "GET /question",
    )  # fmt: skip
    assert 0.2 < first["share"] <= 1 and "leak" in found["checked"]
    assert "with urllib.request.urlopen(" in (tmp_path / "index.html").read_text()
    assert (tmp_path / "logs" / "doctor.log").exists()


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_healthy_application_has_no_finding_and_exit_code_0(tmp_path):
    found, code = diagnosed(tmp_path, "healthy/two_engines")
    assert not [each for each in found["findings"] if each["share"] >= 0.2]
    assert code == bool(found["findings"])


@pytest.mark.long
@pytest.mark.parametrize("name", [f"sick/{name}" for name in SICK])
def test_the_first_finding_is_the_disease(tmp_path, name):
    found, code = diagnosed(tmp_path, name)
    assert code == 1
    assert (found["findings"][0]["kind"], found["findings"][0]["where"]) == (SICK[Path(name).name], sick_line(name))


@pytest.mark.long
@pytest.mark.parametrize("name", [f"healthy/{name}" for name in HEALTHY] + [f"cured/{name}" for name in SICK])
def test_nothing_of_weight_is_found_in_healthy_and_cured_ones(tmp_path, name):
    found, _ = diagnosed(tmp_path, name)
    assert not [each for each in found["findings"] if each["share"] >= 0.2]


def test_bad_usage_is_one_line_and_exit_code_2(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for arguments, told in (
        ([], "--app and --script say which application to run"),
        (["--app", "x:app"], "--app and --script go together"),
        (["--app", "x:app", "--script", "missing.yml"], "missing.yml: No such file or directory"),
        (["--app", "x:app", "--script", "missing.yml", "--seconds", "nan"], "not a finite number"),
    ):
        done = CliRunner().invoke(cli, ["doctor", *arguments])
        assert done.exit_code == 2 and told in done.stderr and "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_an_application_that_answers_nothing_well_is_no_healthy_one(tmp_path):
    (tmp_path / "failing.py").write_text("def app(environ, start_response):\n    raise KeyError('no setting')\n")
    (tmp_path / "load.yml").write_text(
        "config: {target: 'http://x', phases: [{duration: 1, arrivalCount: 3}]}\nscenarios: [{flow: [{get: {url: /}}]}]\n"
    )
    given = ["--app", "failing:app", "--script", "load.yml", "--seconds", "1", "--servers", "1"]
    done = subprocess.run([LOADGEN, "doctor", *given], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 3 and "no request was answered well" in done.stderr and "Traceback" not in done.stderr


def test_the_code_of_a_finding_is_its_whole_statement(tmp_path):
    (tmp_path / "shop.py").write_text(
        "import sqlalchemy\n\n\nclass Shop:\n    engine = sqlalchemy.create_engine(\n        URL,\n        pool_size=2,\n    )\n"
        "    def show(self):\n        with self.engine.connect() as connection:\n            return 1\n"
    )
    (tmp_path / "broken.py").write_text("first\n  def (\n")
    (tmp_path / "page.html").write_text("{% for book in books %}\n  {{ book.author.name }}\n{% endfor %}\n")
    # Python warns of this escape.
    (tmp_path / "odd.py").write_text("odd = [\n    '\\d',\n]\n")
    assert code_at(["odd.py:2"], tmp_path) == {"odd.py:2": "odd = [\n    '\\d',\n]"}
    assert code_at(["shop.py:7", "shop.py:10", "broken.py:2", "page.html:2", "missing.py:1", None], tmp_path) == {
        "shop.py:7": "engine = sqlalchemy.create_engine(\n    URL,\n    pool_size=2,\n)",
        "shop.py:10": "with self.engine.connect() as connection:",
        "broken.py:2": "def (",
        "page.html:2": "{{ book.author.name }}",
    }


def test_processes_that_saw_nothing_are_an_error_unless_a_signal_ended_the_run(tmp_path):
    with pytest.raises(NothingSeenError, match="ended, or did not answer"):
        _collected(tmp_path, 0, [], whole=True)
    assert _collected(tmp_path, 0, [], whole=False) == []


def test_what_processes_saw_before_the_load_does_not_count(tmp_path, monkeypatch):
    monkeypatch.setattr("loadgen.lab.doctor._MOST_BEGIN_S", 0.1)
    (tmp_path / f"{os.getpid()}.watching").touch()
    ended_ns = time.perf_counter_ns()
    # As of a process that never says that it has begun.
    began_ns = _begun(tmp_path)
    assert int((tmp_path / "load").read_text()) == began_ns >= ended_ns
    served = {"GET /": RequestSum(1, 2)}
    shared = {LoanKey("", "", "shop.py:1"): LoanSum(1, foreign=1)}
    for name, seen in {
        "1": Observed(requests=served, lives=[(0, ended_ns - 1)]),
        f"{os.getpid()}": Observed(requests=served, lives=[(0, began_ns + 1)]),
        "3-forked": Observed(loans=shared),
    }.items():
        (tmp_path / f"{name}.observed").write_text(json.dumps(seen.to_json()))
    found = total(_collected(tmp_path, began_ns, [], whole=True))
    assert found.requests == served and found.loans == shared


def test_processes_that_ended_under_load_without_saying_what_they_saw_are_counted_and_told(tmp_path):
    names = ["none.watching", "none.begun", "written.begun", "written.observed", f"{os.getpid()}.watching"]
    for name in [*names, f"{os.getpid()}.begun", "before.watching"]:
        (tmp_path / name).touch()
    lost = _count_lost(tmp_path)
    given = {"application": "shop:app", "script": "load.yml", "servers": 2, "seconds": 60}
    page = doctor_page(given, Diagnosis((), KINDS), Report.of([]), [], {}, partial=False, lost=lost)
    assert lost == 1 and "\nA process of the application ended during the load" in written(page, "text")
    assert page.data["notes"][0].startswith("A process of the application ended")


def test_a_signal_while_processes_write_down_what_they_saw_loses_nothing_that_is_there(tmp_path):
    (tmp_path / f"{os.getpid()}.watching").touch()
    (tmp_path / "1.observed").write_text(json.dumps(Observed(requests={"GET /": RequestSum(1, 2)}).to_json()))
    with stopping(lambda: None) as signals:
        timer = threading.Timer(0.3, os.kill, (os.getpid(), SIGINT))
        timer.start()
        (found,) = _collected(tmp_path, 0, signals, whole=True)
        timer.join()
    assert signals == [SIGINT] and found.requests == {"GET /": RequestSum(1, 2)}


WAITING = """
from loadgen.lab import doctor
wait, doctor._AFTERMATH_S = doctor._wait, 60
doctor._wait = lambda most_s, *given: (most_s == 60 and print("waits", flush=True), wait(most_s, *given))
from loadgen.__main__ import main
main()
"""


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_signal_after_the_load_has_ended_does_not_lose_the_page(tmp_path):
    _, _, _, *given = command("healthy/two_engines", tmp_path, 3)
    running = subprocess.Popen(
        [sys.executable, "-c", WAITING, "doctor", *given[1:]],
        cwd=APPLICATIONS, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert running.stdout.readline() == "waits\n"
    running.send_signal(SIGTERM)
    _, said = running.communicate(timeout=60)
    assert running.returncode == 143, said
    assert json.loads((tmp_path / "doctor.json").read_text())["checked"]


A_LOAN = {"a loan": None}


@pytest.mark.parametrize(
    ("parts", "count"),
    [
        (
            [Observed(requests={"GET /": RequestSum()}, lives=[(1, 9)])] * 2 + [Observed(loans=A_LOAN, lives=[(1, 9)])],
            2,
        ),
        # Of a server whose requests are not seen, such as uwsgi.
        ([Observed(loans=A_LOAN, lives=[(1, 9)]), Observed(loans=A_LOAN, lives=[(2, 9)]), Observed(lives=[(1, 9)])], 2),
        # Workers that are replaced after so many requests.
        ([Observed(requests={"GET /": RequestSum()}, lives=[(at, at + 5)]) for at in (1, 3, 7, 9, 12)], 2),
    ],
)
def test_processes_that_served_are_counted(parts, count):
    assert _count_serving(parts) == count


@pytest.mark.parametrize(("bad", "is_mentioned", "is_crowded_out"), [(4, False, False), (25, True, True)])
def test_failed_requests_and_busy_workers_are_mentioned_below_the_diagnosis(bad, is_mentioned, is_crowded_out):
    total = SimpleNamespace(
        counters={"http.requests": 100, "http.codes.200": 100 - bad, "http.codes.500": bad}, summaries={}
    )
    given = {"application": "shop:app", "script": "load.yml", "servers": 2, "seconds": 60}
    busy = Diagnosis((), KINDS, ("A worker has no CPU to spare.",), is_crowded_out=is_crowded_out)
    text = written(doctor_page(given, busy, SimpleNamespace(aggregate=total), [], {}, partial=False), "text")
    assert ("cannot be judged" in text.splitlines()[0]) is is_crowded_out
    nothing = text.index("Nothing was found that holds connections back.")
    assert nothing < text.index("A worker has no CPU to spare.") < text.index("Looked for")
    assert (f"{bad} % of the requests got no good answer" in text) is is_mentioned
