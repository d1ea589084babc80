"""The script of a load on servers that were started here."""

from loadgen.lab.local_script import local_script

SCRIPT = """
config: {target: "http://example.com", variables: {token: "{{ $env.TOKEN }}"}, phases: [{duration: 9, arrivalRate: 9}]}
scenarios: [{flow: [{get: {url: /, headers: {authorization: "{{ $processEnvironment.TOKEN }}"}}}]}]
"""
URL = "http://127.0.0.1:1"


def test_a_script_reads_the_environment_and_no_proxy_comes_between(tmp_path, monkeypatch):
    monkeypatch.setenv("TOKEN", "abc")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("HTTPS_PROXY", "no proxy")
    (tmp_path / "load.yml").write_text(SCRIPT)
    script = local_script(str(tmp_path / "load.yml"), URL, tmp_path)
    assert (script.target, script.proxies, script.variables) == (URL, {}, {"token": "abc"})
    assert script.built_ins["$processEnvironment"]["TOKEN"] == "abc"
    assert [phase.duration_s for phase in script.phases] == [9]


def test_a_single_phase_takes_the_place_of_the_scripts_own(tmp_path):
    (tmp_path / "load.yml").write_text(SCRIPT)
    script = local_script(str(tmp_path / "load.yml"), URL, tmp_path, {"duration": 1, "arrivalCount": 5})
    assert [phase.arrival_count for phase in script.phases] == [5]
