"""A run against answers whose heads and bodies are wrong; `python -m tests.loadgen.fuzzing` makes many such runs."""

from tests.loadgen.fuzzing.rounds import run_round


def test_a_run_survives_fuzzed_answers_and_accounts_for_every_request(tmp_path):
    counters = run_round(seed=1, users=150, folder=tmp_path)
    assert counters["http.requests"] > 300
