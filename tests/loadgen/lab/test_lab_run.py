"""The lab for real: servers and databases started, loaded, restarted, and gone afterwards."""

import json
import signal
import subprocess
import sys

import psutil
import psycopg2
import pytest
from click.testing import CliRunner

from loadgen.commands.lab import lab
from loadgen.lab.experiments import Sizes, experiments
from loadgen.lab.folders import RUNS, made
from loadgen.lab.run import Lab, LabError, LabOptions
from reports.formats.apachebench import all_from_text
from reports.formats.artillery_json import from_json
from tests.support.server_process import descendants, read_until, wait_until

# The session that the first test waits for has taken 90 s on a busy machine.
pytestmark = pytest.mark.timeout(300)

SMALL = Sizes(requests=60, ab_s=2.0, phase_s=1)


def options(out, *ids, **rest):
    wanted = tuple(e for e in experiments(2) if e.id in ids)
    return LabOptions(experiments=wanted, sizes=SMALL, out=out, clicks=3, **rest)


def run(given):
    said, live = [], []
    return Lab(given, said.append, live.append).run(), said


def children():
    return {p.pid for p in psutil.Process().children(recursive=True)}


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    out = tmp_path_factory.mktemp("lab") / "made" / "by" / "the lab"
    before = children()
    evidence, said = run(options(out, "B.1.c1", "B.3.c1", "A.pool10", "A.analytics", "A.nested.c1", "A.plain.c1"))
    # An autovacuum worker of a server that other tests share may come and go.
    wait_until(lambda: children() <= before, "what it started has ended")
    return out, evidence, said


def test_each_experiment_leaves_its_reports(session):
    out, evidence, _ = session
    assert list(evidence.outcomes) == ["B.1.c1", "B.3.c1", "A.pool10", "A.analytics", "A.nested.c1", "A.plain.c1"]
    for key, outcome in evidence.outcomes.items():
        report = from_json((out / f"{key}.json").read_text())
        assert report.aggregate.counters == outcome.report.aggregate.counters
        assert "Summary report @" in (out / f"{key}.txt").read_text()
        assert (out / f"{key}.ab.txt").exists() == (outcome.experiment.script is None)
    assert all_from_text((out / "B.3.c1.ab.txt").read_text())[0].complete == 60
    assert {p.name for p in out.iterdir()} >= {"summary.md", "summary.json", "environment.json"}


def test_what_was_seen_from_outside_is_told(session):
    _, evidence, said = session
    one, many = evidence.outcomes["B.1.c1"], evidence.outcomes["A.pool10"]
    assert 0 <= one.peak_backends <= 3
    assert 2 <= many.peak_backends <= 20
    assert many.servers_cpu_s > 0
    assert many.database_cpu_s > 0
    assert all(0 <= outcome.others_share <= 1 for outcome in evidence.outcomes.values())
    assert evidence.outcomes["B.3.c1"].unhonoured == ("DB_POOL_IDLE", "DB_POOL_MIN")
    assert any("A.pool10" in line for line in said)


def test_what_a_connection_costs_and_how_it_is_authenticated_is_asked_of_the_database(session):
    _, evidence, _ = session
    connecting = evidence.connecting
    assert 0 < connecting.ms < 1000
    assert (connecting.authentication, connecting.max_connections) == ("scram-sha-256", 100)
    assert "scram-sha-256 authentication" in evidence.environment["postgres"]


def test_no_click_is_lost_and_a_restart_keeps_everything(session):
    _, evidence, _ = session
    outcome = evidence.outcomes["A.pool10"]
    assert outcome.clicks_recorded == outcome.answers(301) > 400
    assert evidence.restart.before == evidence.restart.after
    assert evidence.restart.before[0] == 200
    for key in ("A.nested.c1", "A.plain.c1"):
        assert evidence.outcomes[key].answers(200) == evidence.outcomes[key].requests == 60


def test_memory_per_backend_is_plausible(session):
    _, evidence, _ = session
    assert 0.5 < evidence.memory.per_backend_mb < 10
    assert evidence.memory.shared_mb > 128


def test_the_summary_judges_what_was_run_and_says_what_was_not(session):
    out, _, _ = session
    document = json.loads((out / "summary.json").read_text())
    verdicts = {claim["id"]: claim["verdict"] for claim in document["claims"]}
    assert verdicts["A.restart"] == verdicts["A.concurrency"] == "reproduced"
    assert verdicts["B.pool-per-request"] == "not measured"
    environment = json.loads((out / "environment.json").read_text())
    assert "PostgreSQL" in environment["postgres"]
    assert environment["settings"]["experiments"]["A.pool10"]["servers"] == 2
    assert environment["settings"]["database"] == "embedded"


@pytest.mark.slow
def test_a_given_database_is_used_in_a_schema_of_its_own_and_left_as_it_was(postgres, tmp_path):
    def objects():
        connection = psycopg2.connect(postgres.url)
        with connection, connection.cursor() as cursor:
            cursor.execute("SELECT nspname FROM pg_namespace UNION SELECT relname FROM pg_class ORDER BY 1")
            found = cursor.fetchall()
        connection.close()
        return found

    asked = []
    before = objects()
    evidence, _ = run(options(tmp_path / "out", "B.1.c1", "A.pool10", database_url=postgres.url, confirm=asked.append))
    assert objects() == before
    assert list(evidence.outcomes) == ["A.pool10"]
    assert len(asked) == 1
    assert any("B.1.c1 was skipped" in note for note in evidence.notes)
    assert evidence.restart is None
    assert evidence.memory is None
    assert evidence.outcomes["A.pool10"].database_cpu_s is None
    assert evidence.outcomes["A.pool10"].others_share is None


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("postgresql://nobody:secret@127.0.0.1:1/none", "onnection refused"),
        ("mysql://h/db", "postgresql"),
    ],
)
def test_a_wrong_database_url_is_one_line_without_its_password(tmp_path, url, told):
    with pytest.raises((LabError, ValueError)) as error:
        run(options(tmp_path / "out", "B.3.c1", database_url=url))
    assert told in str(error.value)
    assert "secret" not in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_ctrl_c_leaves_no_process_and_writes_what_was_measured(start_process, tmp_path):
    out = tmp_path / "out"
    process = start_process([sys.executable, "-m", "loadgen", "lab", "--only", "B.3", "--out", out])
    read_until(process.stderr, "B.3.c100")
    started = psutil.Process(process.pid)
    wait_until(lambda: len(started.net_connections()) >= 20, "its hundred users have begun")
    family = descendants(process.pid)
    assert family
    process.send_signal(signal.SIGINT)
    stdout, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    _, alive = psutil.wait_procs(family, timeout=30)
    assert not alive
    assert "Partial" in stdout
    assert json.loads((out / "summary.json").read_text())["partial"] is True
    assert (out / "B.3.c1.json").exists()
    assert from_json((out / "B.3.c100.json").read_text()).extras.partial is True


@pytest.mark.slow
def test_a_signal_between_loads_leaves_partial_results(start_process, tmp_path):
    out = tmp_path / "out"
    process = start_process([sys.executable, "-m", "loadgen", "lab", "--only", "hikaricp-spike", "--out", out])
    turns = set()

    def the_first_has_been_measured():
        assert process.poll() is None, "the lab ended early"
        found = descendants(process.pid, "loadgen.lab.publication_turn", recursive=False)
        turns.update(each.pid for each in found)
        return len(turns) > 1

    wait_until(the_first_has_been_measured, "the second turn has begun")
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 143 and "Traceback" not in said
    assert json.loads((out / "summary.json").read_text())["partial"] is True


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs PR_SET_PDEATHSIG")
def test_a_killed_lab_leaves_no_server_behind(start_process, tmp_path):
    process = start_process([sys.executable, "-m", "loadgen", "lab", "--only", "B.3.c1", "--out", tmp_path / "out"])
    wait_until(lambda: descendants(process.pid, "gunicorn"), "its servers have been started")
    family = descendants(process.pid)
    assert descendants(process.pid, "postgres")
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(family, timeout=20)
    assert not alive


def test_a_run_that_fails_or_is_interrupted_early_leaves_no_folder(tmp_path):
    out = tmp_path / "runs" / "one"
    with pytest.raises(LabError):
        run(options(out, "B.3.c1", database_url="postgresql://nobody:secret@127.0.0.1:1/none"))
    assert list(tmp_path.iterdir()) == []
    with made(out):
        assert out.is_dir()
        (out / "logs").mkdir()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(KeyboardInterrupt), made(out):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_latest_leads_to_the_last_run_that_measured_something(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    latest = tmp_path / "runs" / "latest"
    for name in ("first", "second"):
        with made(RUNS / name):
            (RUNS / name / "index.html").write_text(name)
        assert latest.is_symlink()
        assert (latest / "index.html").read_text() == name
    with made(RUNS / "third"):
        pass
    assert (latest / "index.html").read_text() == "second"
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {"first", "second", "latest"}
    with made(tmp_path / "elsewhere"):
        (tmp_path / "elsewhere" / "index.html").write_text("elsewhere")
    assert (latest / "index.html").read_text() == "second"
    latest.unlink()
    latest.mkdir()
    with made(RUNS / "fourth"):
        (RUNS / "fourth" / "index.html").write_text("fourth")
    assert latest.is_dir()
    assert not latest.is_symlink()


def test_an_output_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    done = subprocess.run(
        [sys.executable, "-m", "loadgen", "lab", "--only", "B.3.c1", "--out", str(tmp_path / "file" / "out")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert str(tmp_path / "file") in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_an_output_that_cannot_be_written_is_told_before_anything_is_run(tmp_path):
    arguments = ["--only", "B.3.c1", "--out", str(tmp_path / "out"), "-o", str(tmp_path / "missing" / "page.html")]
    done = CliRunner().invoke(lab, arguments)
    assert done.exit_code == 2
    assert "there is no folder" in done.stderr
    assert not list(tmp_path.iterdir())
