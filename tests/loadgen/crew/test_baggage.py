"""What travels to other machines, and what is refused before anything is sent."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from loadgen.crew.baggage import pack, unfit
from loadgen.crew.crew import CrewError, Job
from loadgen.language.values import UNDEFINED
from loadgen.runner import read_script
from loadgen.script.model import ScriptErrors
from loadgen.script.parse import RunOptions
from tests.support.paths import EXAMPLES

UNPACK = """
import sys
from loadgen.crew.baggage import unpack
from loadgen.processor import User
from loadgen.language.values import UNDEFINED

job = unpack(sys.stdin.buffer.read())
user = User({}, None, None)
job.script.processor.functions["greet"](user)
print(job.plan_seed, user.variables["greeting"], job.script.payloads[0].rows, job.script.built_ins["$environment"] is UNDEFINED)
"""


@pytest.fixture
def script_folder(tmp_path, monkeypatch):
    """Where a script lies; what its processor imports is forgotten afterwards."""
    known = set(sys.modules)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in set(sys.modules) - known:
        del sys.modules[name]


def script_in(script_folder, flow, **config):
    (script_folder / "s.json").write_text(
        json.dumps({"config": {"target": "http://h", **config}, "scenarios": [{"flow": flow}]}), "utf-8"
    )
    return read_script([str(script_folder / "s.json")], RunOptions(directory=str(script_folder)), seed=1)


def test_files_processor_and_its_modules_travel_and_are_not_looked_for_where_they_arrive(script_folder):
    (script_folder / "travelling").mkdir()
    (script_folder / "travelling" / "words.py").write_text("hello = 'hello'", "utf-8")
    (script_folder / "travelling_names.py").write_text(
        "from travelling.words import hello\nwho = hello + ' ada'", "utf-8"
    )
    source = "from travelling_names import who\ndef greet(user): user.variables['greeting'] = who"
    (script_folder / "flow.py").write_text(source, "utf-8")
    (script_folder / "rows.csv").write_text("a,1\nb,2\n", "utf-8")
    script = script_in(
        script_folder, [{"function": "greet"}], processor="flow.py", payload={"path": "rows.csv", "fields": ["x", "y"]}
    )
    assert script.built_ins["$environment"] is UNDEFINED
    packed = pack(Job(script, 7))
    for path in sorted(script_folder.rglob("*.py"), reverse=True):
        path.unlink()
    done = subprocess.run([sys.executable, "-c", UNPACK], input=packed, capture_output=True, check=False, timeout=60)
    assert done.stdout.decode() == "7 hello ada (('a', 1), ('b', 2)) True\n", done.stderr.decode()


def test_an_upload_whose_name_only_a_user_knows_is_refused_with_its_place(script_folder):
    flow = [{"post": {"url": "/", "formData": {"file": {"fromFile": "./{{ name }}.txt"}}}}]
    [line] = unfit(script_in(script_folder, flow))
    assert line.startswith(f"{script_folder}/s.json:1:") and "cannot be sent to other machines" in line


def test_an_upload_of_a_known_name_travels(script_folder):
    (script_folder / "a.txt").write_text("content", "utf-8")
    script = script_in(script_folder, [{"post": {"url": "/", "formData": {"file": {"fromFile": "./a.txt"}}}}])
    assert unfit(script) == []
    assert b"content" in pack(Job(script, 1))


def test_what_before_left_and_cannot_travel_is_named(script_folder):
    script = script_in(script_folder, [{"get": {"url": "/"}}])
    script = replace(script, built_ins={**script.built_ins, "open": (n for n in ())})
    with pytest.raises(
        CrewError, match="the before section left a value in `open` that cannot be sent to other machines"
    ):
        pack(Job(script, 1))


def test_a_compiled_module_beside_the_processor_is_refused(script_folder):
    (script_folder / "travelling_compiled.py").write_text("n = 1", "utf-8")
    (script_folder / "flow.py").write_text("import travelling_compiled\ndef greet(user): ...", "utf-8")
    script = script_in(script_folder, [{"function": "greet"}], processor="flow.py")
    sys.modules["travelling_compiled"].__file__ = str(script_folder / "travelling_compiled.so")
    why = f"it imports {script_folder}/travelling_compiled.so, which is not Python source and cannot be sent to other machines"
    assert unfit(script) == [f"{script_folder}/flow.py: {why}"]


def test_scripts_of_the_examples_travel():
    packed = 0
    for path in sorted(EXAMPLES.rglob("*.yml")):
        try:
            script = read_script([str(path)], RunOptions(target="http://h"), seed=1)
        except (ScriptErrors, OSError):
            continue
        assert unfit(script) == []
        packed += bool(pack(Job(script, 1)))
    assert packed
