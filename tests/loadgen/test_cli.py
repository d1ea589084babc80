"""The command line: what goes to stdout and stderr, exit codes, and one clear line for each mistake."""

import json
import os
import re
import resource
import signal
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from loadgen.cli import _COMMANDS, cli
from loadgen.help import HELP, option_name
from reports.cli import FiniteRange
from reports.formats import apachebench
from reports.formats.artillery_json import from_json
from tests.support.server_process import read_until, wait_until

SCRIPT = """
config:
  target: {target}
  phases: [{{duration: 1, arrivalCount: 5, name: brief}}]
scenarios:
  - flow:
      - get: {{url: "/a"}}
      - log: "been there"
"""


def loadgen(*arguments):
    return CliRunner().invoke(cli, [str(a) for a in arguments])


@pytest.fixture
def script(tmp_path, serve, ok_answer):
    path = tmp_path / "script.yml"
    path.write_text(SCRIPT.format(target=serve(ok_answer()).url))
    return path


def test_run_prints_artillerys_console_and_writes_the_report(script, tmp_path):
    out = tmp_path / "out.json"
    done = loadgen("run", script, "-o", out)
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert re.fullmatch(r"Test run id: t\w{4}_\w{29}_\w{4}", lines[0])
    assert re.fullmatch(r"Phase started: brief \(index: 0, duration: 1s\) \d\d:\d\d:\d\d\([+-]\d{4}\)", lines[1])
    assert lines[2] == ""
    assert lines.count("been there") == 5
    assert re.search(r"^All VUs finished\. Total time: \d+ seconds?$", done.stdout, re.MULTILINE)
    assert lines[-1] == f"Log file: {out}"
    total = from_json(out.read_text()).aggregate
    assert total.counters["vusers.completed"] == total.counters["http.codes.200"] == 5
    assert "loadgen.start_lag" not in done.stdout
    assert total.summaries["loadgen.start_lag"].count == 5


DEFECTIVE = """
import sys
from loadgen.vu.program import CompiledScript
def start_vu(self, intended_ns):
    raise LookupError("a hole")
CompiledScript.start_vu = start_vu
sys.argv = ["loadgen", "run", *sys.argv[1:]]
from loadgen.__main__ import main
main()
"""


@pytest.mark.parametrize("options", [[], ["--workers", "2"]])
def test_a_defect_does_not_lose_the_report(script, tmp_path, options):
    out = tmp_path / "out.json"
    done = subprocess.run(
        [sys.executable, "-c", DEFECTIVE, str(script), "-o", str(out), *options],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 3, done.stderr
    report = from_json(out.read_text())
    assert report.extras.partial
    assert report.aggregate.counters["errors.LookupError"] == report.aggregate.counters["vusers.failed"] == 5
    assert done.stderr.count("Traceback") == max(1, len(options))
    assert "Warning: a defect of this program ended" in done.stderr
    assert "LookupError" in done.stdout


def test_a_defect_of_ab_does_not_lose_the_report(tmp_path, serve, ok_answer, monkeypatch):
    def take(self, *answer):
        raise LookupError("a hole")

    monkeypatch.setattr("loadgen.closed.ClosedRun._take", take)
    out = tmp_path / "out.json"
    done = loadgen("ab", "-n", "4", "-c", "2", "-o", out, f"{serve(ok_answer()).url}/")
    assert done.exit_code == 3
    report = from_json(out.read_text())
    assert report.extras.partial
    assert report.aggregate.counters["errors.LookupError"] == 2
    assert done.stderr.count("Traceback") == 1
    assert "Warning: a defect of this program ended 2 of its users: LookupError: a hole" in done.stderr


def test_help_names_every_command_without_importing_one():
    code = "import sys; from loadgen.cli import cli; cli(['--help'], standalone_mode=False); print(*sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for name in cli.list_commands(None):
        command = cli.get_command(None, name)
        assert command.name == name
        assert f"  {name} " in shown
    assert "loadgen.commands" not in shown


def test_a_run_imports_nothing_that_its_script_does_not_need(script):
    code = (
        "import sys; from loadgen.cli import cli\n"
        "try: cli(sys.argv[1:])\nexcept SystemExit: print(*sorted({m.split('.')[0] for m in sys.modules}), *sys.modules)"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code, "run", "-q", str(script)], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "numpy" in shown
    large = {"jsonpath", "jmespath", "lxml", "distributed", "prometheus_client", "sqlalchemy", "flask", "gevent.pywsgi"}
    standard = {"ssl", "email", "logging", "importlib.metadata", "encodings.idna", "gevent.lock"}
    ours = {"loadgen.crew.crew", "loadgen.closed", "loadgen.language.jsonpath", "reports.formats.apachebench"}
    assert not (large | standard | ours | {"reports.blocks"}) & set(shown)


IMPORTED_MEANWHILE = """
import sys
from loadgen.cli import cli
from loadgen.engine import Engine
run = Engine.run
def watched(*arguments):
    before = set(sys.modules)
    run(*arguments)
    # The text of a period is made when users have come to their ends.
    print("imported:", *(name for name in set(sys.modules) - before if not name.startswith("encodings.utf")))
Engine.run = watched
cli(sys.argv[1:])
"""


def test_no_user_waits_for_an_import(tmp_path, serve, ok_answer):
    cookie = b"Set-Cookie: a=1; Expires=Wed, 21 Oct 2037 07:28:00 GMT\r\n"
    answer = ok_answer(
        b'{"ids": [{"a": 1}]}', cookie + b"Content-Type: application/json\r\nServer-Timing: db;dur=2\r\n"
    )
    source = tmp_path / "script.yml"
    source.write_text(f"""
config: {{target: "http://localhost:{serve(answer).port}", phases: [{{duration: 1, arrivalRate: 5}}], plugins: {{expect: {{}}}}}}
scenarios:
  - flow:
    - get:
        url: "/{{{{ $uuid }}}}"
        capture: [{{json: "$.ids[?(@.a == 1)].a", as: id}}, {{header: server-timing, as: timing}}, {{regexp: "d.", as: d}}]
        expect: [{{statusCode: 200}}]
    - parallel: [{{get: {{url: "/"}}}}, {{post: {{url: "/", json: {{id: "{{{{ id }}}}"}}}}}}]
    - think: 0.3
  - flow: [{{get: {{url: "http://127.0.0.1:1/"}}}}]
""")
    command = [sys.executable, "-c", IMPORTED_MEANWHILE, "run", "-q", str(source)]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert [line for line in shown.splitlines() if line.startswith("imported:")] == ["imported:"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "/dev/zero"),
        ("run", "--check", "/dev/zero"),
        ("run", "--dotenv", "/dev/zero", "a.yml"),
        ("doctor", "--app", "a:b", "--script", "/dev/zero"),
        ("init", "/dev/zero"),
        ("history", "/dev/zero"),
    ],
)
def test_a_file_without_end_is_an_error_in_one_line(arguments):
    done = loadgen(*arguments)
    assert done.exit_code in (1, 2)
    assert "/dev/zero: larger than " in done.stderr and done.stderr.count("\n") == 1


def test_quick_says_what_is_wrong_with_its_surroundings(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "proxy:3128")
    done = loadgen("quick", "http://127.0.0.1:1/")
    assert done.exit_code == 1
    assert done.stderr.startswith("Error: environment: ") and done.stderr.count("\n") == 1


def test_a_run_may_be_shown_in_apachebenchs_layout(script):
    done = loadgen("run", script, "--format", "ab")
    assert done.exit_code == 0
    (shown,) = apachebench.all_from_text(done.stdout)
    assert shown.complete == 5
    assert (shown.host, shown.failed, sorted(shown.percentiles)) == (
        "127.0.0.1",
        0,
        [50, 66, 75, 80, 90, 95, 98, 99, 100],
    )
    assert "Summary report" not in done.stdout and "Test run id" not in done.stdout
    assert loadgen("run", script, "--format", "ab", "-q").stdout.count("Complete requests") == 0
    assert loadgen("run", script, "--format", "html").exit_code == 2


def test_quiet_leaves_the_run_id_and_logs(script):
    lines = loadgen("run", script, "-q").stdout.splitlines()
    assert len(lines) == 6
    assert lines[1:] == ["been there"] * 5


def test_an_output_folder_gets_a_file_named_by_the_time(script, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    assert loadgen("run", script, "-o", folder, "-q").exit_code == 0
    assert re.fullmatch(r"artillery_report_\d{8}_\d{8}\.json", next(folder.iterdir()).name)


def test_the_run_id_may_be_given(script, monkeypatch):
    monkeypatch.setenv("ARTILLERY_TEST_RUN_ID", "mine")
    assert loadgen("run", script, "-q").stdout.splitlines()[0] == "Test run id: mine"


def test_a_failed_check_is_exit_code_1_and_a_failed_expectation_21(tmp_path, script):
    text = script.read_text()
    checked = tmp_path / "checked.yml"
    checked.write_text(text.replace("config:", "config:\n  plugins: {ensure: {thresholds: [{http.codes.200: 3}]}}"))
    done = loadgen("run", checked, "-q")
    assert done.exit_code == 1
    assert done.stdout.endswith("\nChecks:\nfail: http.codes.200 < 3\n")
    expecting = tmp_path / "expecting.yml"
    expecting.write_text(
        text.replace("config:", "config:\n  plugins: {expect: {}}").replace(
            '"/a"}', '"/a", expect: [{statusCode: 404}]}'
        )
    )
    assert loadgen("run", expecting, "-q").exit_code == 21


def test_errors_of_the_target_leave_exit_code_0(script):
    done = loadgen("run", script, "-t", "http://127.0.0.1:1")
    assert done.exit_code == 0
    assert re.search(r"errors\.ECONNREFUSED: \.+ 5\n", done.stdout)
    assert "Warning: no request was answered: nothing listens at 127.0.0.1:1\n" in done.stderr


@pytest.mark.parametrize("target", ["notaurl", "http://127.0.0.1:99999"])
def test_a_target_that_no_request_can_be_sent_to_is_told(script, target):
    done = loadgen("run", script, "-t", target)
    assert done.exit_code == 0
    assert re.search(rf"Warning: no request was sent: the most frequent error was .*{re.escape(target)}", done.stderr)


def test_check_only_looks(script, serve, ok_answer):
    assert loadgen("run", script, "--check").exit_code == 0
    checked = loadgen("run", script, "--check")
    assert checked.stdout == "" and re.fullmatch(
        r"1 scenario, .* seconds?, about .* users?; no problems\n", checked.stderr
    )


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("config: [", "script.yml"),
        ("a: 1\na: 2\n", "script.yml:2"),
        ("config: {target: http://h}\nscenarios: nothing\n", "scenarios"),
        ("config: {target: http://h}\nscenarios:\n- flow:\n  - gte: {url: /}\n", "`get`"),
        ("config: {target: http://h}\nscenarios:\n- flow:\n  - function: login\n", "scenarios[0].flow[0].function"),
        ("scenarios:\n- flow:\n  - get: {url: /}\n", "No target specified and no environment chosen"),
        ("config: {target: http://h, phases: [{duration: abc, arrivalRate: 1}]}\nscenarios:\n- flow: []\n", "abc"),
    ],
    ids=["yaml", "duplicate", "no list", "typo", "javascript", "no target", "duration"],
)
def test_a_script_that_cannot_run_is_one_line_with_its_place(tmp_path, content, told):
    path = tmp_path / "script.yml"
    path.write_text(content)
    done = loadgen("run", path)
    assert done.exit_code == 1
    assert told in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.output
    assert all(line.startswith(("Error: ", "Warning: ")) for line in done.stderr.splitlines())


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["run"], 2, "SCRIPT"),
        (["run", "nowhere.yml"], 1, "cannot read nowhere.yml: No such file or directory"),
        (["run", "{script}", "--no-such-flag"], 2, "--no-such-flag"),
        (["run", "{script}", "-v", "{"], 1, "--variables"),
        (["run", "{script}", "-o", "no/such/folder/x.json"], 1, "no/such/folder"),
        (["run", "{script}", "--dotenv", "missing.env"], 1, "missing.env"),
        (["run", "{script}", "--scenario-name", "other"], 1, "--scenario-name"),
        (["quick", "h:80"], 1, "http://"),
        (["ab", "h:80"], 2, "invalid URL h:80"),
        (["ab", "http://h:99999/"], 2, "invalid URL http://h:99999/"),
        (["ab", "http://me:secret@h:99999/"], 2, "invalid URL http://…@h:99999/: "),
        (["quick", "me:secret@h:80"], 1, "invalid URL …@h:80: "),
        (["run", "{script}", "-o", "x" * 300], 1, f"cannot write {'x' * 300}: File name too long"),
        (["lab", "--out", "x" * 300], 2, f"cannot write into {'x' * 300}: File name too long"),
        (["ab", "-n", "5", "-c", "6", "http://h/"], 2, "-c 6"),
        (["ab", "-H", "nonsense", "http://h/"], 2, "'nonsense'"),
        (["ab", "-p", "missing", "http://h/"], 2, "cannot read missing"),
        (["ab", "-o", "no/such/x.json", "http://h/"], 2, "no/such"),
        (["ab", "http://127.0.0.1:1/", "-q"], 3, "cannot connect to 127.0.0.1:1 (ECONNREFUSED)"),
        (["lab", "--only", "Z"], 2, "no experiment, group or publication 'Z'"),
        (["lab", "--strategies", "magic"], 2, "magic"),
        (["diff", "a.json", "b.json"], 2, "a.json"),
    ],
)
def test_a_mistake_is_one_clear_line_and_its_exit_code(script, tmp_path, monkeypatch, arguments, code, told):
    monkeypatch.chdir(tmp_path)
    done = loadgen(*[a.replace("{script}", str(script)) for a in arguments])
    assert done.exit_code == code, done.output
    assert told in done.stderr
    assert "Traceback" not in done.output and "secret" not in done.output
    assert list(tmp_path.glob("**/*.json")) == []


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["run", "latin.yml"], 1),
        (["run", "latin.yml", "--check"], 1),
        (["lab", "--app", "a:app", "--script", "latin.yml"], 2),
        (["doctor", "--app", "a:app", "--script", "latin.yml"], 2),
        (["sweep", "--rate", "10", "--script", "latin.yml"], 2),
        (["sweep", "--rate", "10", "--app", "a:app", "--script", "latin.yml"], 2),
        (["capacity", "--p99", "100", "latin.yml"], 2),
        (["capacity", "--p99", "100", "--app", "a:app", "latin.yml"], 2),
        (["duel", "http://h", "http://h", "latin.yml"], 2),
    ],
)
def test_a_script_that_is_no_utf_8_is_one_clear_line(tmp_path, monkeypatch, command, code):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "latin.yml").write_bytes(b"config: {target: caf\xe9}\n")
    done = loadgen(*command)
    assert (done.exit_code, done.stderr) == (
        code,
        "Error: latin.yml: not UTF-8 (invalid continuation byte at byte 20)\n",
    )


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "Is a directory"),
        (b"A=caf\xe9\n", "not UTF-8 (invalid continuation byte at byte 5)"),
        (b"A=b\0c\n", "'A' cannot be set as a variable"),
        (b"'A=B'=c\n", "'A=B' cannot be set as a variable"),
    ],
    ids=["folder", "latin-1", "binary", "name"],
)
@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["run", "{script}"], 1),
        (["lab", "--app", "a:app", "--script", "{script}"], 2),
        (["doctor", "--app", "a:app", "--script", "{script}"], 2),
        (["sweep", "--rate", "10", "--app", "a:app", "--script", "{script}"], 2),
        (["capacity", "--p99", "100", "--app", "a:app", "{script}"], 2),
    ],
    ids=["run", "lab", "doctor", "sweep", "capacity"],
)
def test_a_bad_file_of_variables_is_one_clear_line(script, tmp_path, monkeypatch, content, told, command, code):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "my.env"
    if content is None:
        file.mkdir()
    else:
        file.write_bytes(content)
    done = loadgen(*[each.replace("{script}", str(script)) for each in command], "--dotenv", "my.env")
    assert done.exit_code == code, done.output
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"Error: --dotenv my.env: {told}")


def test_the_variables_of_runs_file_win_over_those_already_set(tmp_path, monkeypatch, serve, ok_answer):
    server = serve(ok_answer())
    monkeypatch.setenv("SERVICE", "http://127.0.0.1:1")
    # With the mark at the beginning by which some editors show that it is UTF-8.
    (tmp_path / "my.env").write_text(f"SERVICE={server.url}\n", encoding="utf-8-sig")
    (tmp_path / "s.yml").write_text(SCRIPT.format(target='"{{ $env.SERVICE }}"'))
    done = loadgen("run", "-s", "--dotenv", tmp_path / "my.env", tmp_path / "s.yml")
    assert done.exit_code == 0 and len(server.heads) == 1, done.output
    # Functions of a processor look there.
    assert os.environ["SERVICE"] == server.url


def test_quick_sends_num_requests_from_count_users(serve, ok_answer):
    server = serve(ok_answer())
    done = loadgen("quick", "-c", 3, "-n", 4, "-q", f"{server.url}/x?y=1")
    assert done.exit_code == 0
    assert len(server.heads) == 12
    assert server.heads[0].startswith(b"GET /x?y=1 HTTP/1.1")
    assert server.connections == 3


@pytest.mark.parametrize(("status", "told"), [(503, True), (404, True), (302, False), (200, False)])
def test_a_run_without_a_single_success_says_so(serve, status, told):
    server = serve(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % status)
    done = loadgen("quick", "-c", 2, "-n", 2, server.url)
    assert done.exit_code == 0
    assert (f"Warning: every answer was an error: 4 of 4 were {status}\n" in done.stderr) is told


def test_ab_prints_apachebenchs_report_and_writes_json(serve, ok_answer, tmp_path):
    server = serve(ok_answer())
    out = tmp_path / "ab.json"
    done = loadgen("ab", "-n", 20, "-c", 4, "-o", out, f"{server.url}/p")
    assert done.exit_code == 0
    assert "Complete requests:      20\n" in done.stdout
    assert done.stdout.rstrip().splitlines()[-1].startswith(" 100% ")
    document = json.loads(out.read_text())
    assert document["aggregate"]["counters"]["http.codes.200"] == 20
    assert document["poolbench"]["ab"]["complete"] == 20


def test_ab_posts_a_file(serve, ok_answer, tmp_path):
    server = serve(ok_answer())
    body = tmp_path / "body"
    body.write_bytes(b"\r\n\r\n" * 2)  # read as two more heads by the fixture: it reads heads only
    done = loadgen("ab", "-p", body, "-T", "application/json", f"{server.url}/")
    assert done.exit_code == 0
    assert server.heads[0].startswith(b"POST / HTTP/1.0\r\nContent-length: 8\r\nContent-type: application/json\r\n")
    assert "Total body sent:" in done.stdout


def test_the_version_is_told():
    assert re.fullmatch(r"loadgen \d+\.\d+\.\d+\n", loadgen("--version").stdout)


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
@pytest.mark.parametrize("name", sorted(_COMMANDS))
def test_a_number_that_is_not_finite_is_refused_wherever_a_number_is_taken(name, value):
    command = cli.get_command(None, name)
    taking = [each for each in command.params if isinstance(each.type, click.types.FloatParamType)]
    for option in taking:
        assert isinstance(option.type, FiniteRange)
        with pytest.raises(click.BadParameter):
            option.type.convert(value, option, None)


@pytest.mark.parametrize("name", sorted(_COMMANDS))
def test_each_option_stands_in_one_section_of_its_commands_help(name):
    command = cli.get_command(None, name)
    options = [option_name(each) for each in command.params if isinstance(each, click.Option) and not each.hidden]
    sections, examples = HELP[name]
    named = [each for section in sections.values() for each in section]
    assert sorted(named) == sorted(options)
    assert examples
    shown = CliRunner().invoke(cli, [name, "--help"]).output
    assert all(f"\n{title}:\n" in shown for title in (*sections, "Examples"))
    assert all(f"  {example}\n" in shown for example in examples)


def test_help_is_quick():
    """By CPU time, since other programs may keep the machine busy."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    subprocess.run([sys.executable, "-m", "loadgen", "--help"], check=True, capture_output=True)
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 0.5


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_writes_its_partial_report(script, tmp_path, start_process, number, code):
    script.write_text(script.read_text().replace("duration: 1, arrivalCount: 5", "duration: 60, arrivalRate: 20"))
    out = tmp_path / "out.json"
    process = start_process([sys.executable, "-m", "loadgen", "run", script, "-o", out])
    read_until(process.stdout, "been there")
    process.send_signal(number)
    rest, _ = process.communicate(timeout=60)
    assert process.returncode == code
    assert "Summary report @" in rest
    report = from_json(out.read_text())
    assert report.extras.partial is True
    assert report.aggregate.counters["vusers.completed"] >= 1


def test_an_interrupted_ab_prints_what_it_has(serve, ok_answer, start_process):
    server = serve(ok_answer())
    process = start_process([sys.executable, "-m", "loadgen", "ab", "-n", "100000000", "-c", "2", f"{server.url}/"])
    wait_until(lambda: len(server.heads) >= 50, "it is under way")
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert re.search(r"Complete requests: +\d+", out)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-X", "127.0.0.1:1", "https://127.0.0.1:1/"], "-X: a proxy is asked in the clear"),
        (
            ["-X", "http://127.0.0.1:1", "http://127.0.0.1:1/"],
            "invalid proxy 'http://127.0.0.1:1': it must be HOST or HOST:PORT",
        ),
        (["-X", "127.0.0.1:http", "http://127.0.0.1:1/"], "invalid proxy '127.0.0.1:http'"),
        (["-X", "u:p@127.0.0.1:1", "http://127.0.0.1:1/"], "invalid proxy '…@127.0.0.1:1'"),
    ],
)
def test_a_proxy_that_ab_cannot_use_is_refused_before_anything_is_sent(arguments, said):
    done = loadgen("ab", *arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert said in done.stderr


def test_a_proxy_that_nothing_listens_at_is_named():
    done = loadgen("ab", "-X", "127.0.0.1:1", "http://up.example/")
    assert done.exit_code == 3
    assert "cannot connect to 127.0.0.1:1 (ECONNREFUSED)" in done.stderr
