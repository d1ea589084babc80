"""Closed formulas of queueing theory: known values, limits, and what they have in common."""

from math import factorial, inf, isclose

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.sizing import queueing

RATES = st.floats(0.1, 500)
HOLDS = st.floats(0.001, 2)
SIZES = st.integers(1, 60)


def test_erlang_b_is_that_of_the_textbook_sum():
    for offered, lines in ((1.0, 1), (3.0, 4), (8.0, 12)):
        terms = [offered**k / factorial(k) for k in range(lines + 1)]
        assert isclose(queueing.erlang_b(offered, lines), terms[-1] / sum(terms))


def test_erlang_c_of_two_servers_is_known():
    """2 rho^2 / (1 + rho) for c = 2."""
    assert isclose(queueing.erlang_c(1.6, 2), 2 * 0.8**2 / 1.8)


def test_a_thousand_connections_neither_overflow_nor_vanish():
    assert 0 < queueing.erlang_c(990, 1000) < 1
    assert queueing.mmc_timeout_share(2000, 1, 1000, 5) == pytest.approx(0.5, abs=0.01)
    assert queueing.mmc_timeout_share(0.01, 0.01, 1000, 5) == 0
    assert queueing.mmc_shed_share(2000, 1, 1000, 10_000) == pytest.approx(0.5)


def test_one_server_gives_the_formulas_of_m_m_1_and_m_g_1():
    """M/M/1: rho / (1 - rho) hold. M/D/1: half of that (Pollaczek and Khinchine)."""
    assert isclose(queueing.mmc_mean_wait_s(8, 0.1, 1), 0.8 / 0.2 * 0.1)
    assert isclose(queueing.mgc_mean_wait_s(8, 0.1, 1, variation=0), 0.8 / 0.2 * 0.1 / 2)


@given(st.floats(0.5, 0.98), HOLDS, st.integers(1, 10))
def test_the_median_and_tail_of_m_m_c_agree_with_the_share_that_waits(load, hold_s, connections):
    rate = load * connections / hold_s
    waiting = queueing.erlang_c(rate * hold_s, connections)
    assert queueing.mmc_wait_quantile_s(0.999 * (1 - waiting), rate, hold_s, connections) == 0
    beyond = queueing.mmc_wait_quantile_s(1 - waiting / 10, rate, hold_s, connections)
    assert beyond > queueing.mmc_wait_quantile_s(1 - waiting / 5, rate, hold_s, connections) > 0


@given(st.floats(0.05, 0.98), HOLDS, SIZES, st.floats(0, 4))
def test_allen_and_cunneen_with_poisson_arrivals_is_lee_and_longton(load, hold_s, connections, variation):
    given_ = (load * connections / hold_s, hold_s, connections, variation)
    assert queueing.ggc_mean_wait_s(*given_, arrival_variation=1) == queueing.mgc_mean_wait_s(*given_)


@given(st.integers(1, 40))
def test_a_full_load_has_no_steady_state_and_the_formulas_say_so(connections):
    with pytest.raises(ValueError, match="the queue never ends"):
        queueing.mmc_mean_wait_s(connections, 1.0, connections)


@given(RATES, HOLDS, SIZES, st.floats(0, 30))
def test_losses_are_shares_and_never_less_than_what_exceeds_the_capacity(rate, hold_s, connections, timeout_s):
    least = queueing.lost_share(queueing.load(rate, hold_s, connections))
    assert least - 1e-9 <= queueing.mmc_timeout_share(rate, hold_s, connections, timeout_s) <= 1
    assert least - 1e-9 <= queueing.mmc_shed_share(rate, hold_s, connections, round(timeout_s)) <= 1


@given(RATES, HOLDS, SIZES)
def test_without_patience_or_places_what_is_lost_is_erlangs_b(rate, hold_s, connections):
    blocked = queueing.erlang_b(rate * hold_s, connections)
    assert queueing.mmc_timeout_share(rate, hold_s, connections, 0) == pytest.approx(blocked, rel=1e-6)
    assert queueing.mmc_shed_share(rate, hold_s, connections, 0) == blocked


@given(RATES, HOLDS, SIZES, st.floats(0.01, 10), st.floats(0.01, 10))
def test_more_patience_loses_less(rate, hold_s, connections, timeout_s, more_s):
    loses = queueing.mmc_timeout_share(rate, hold_s, connections, timeout_s)
    assert queueing.mmc_timeout_share(rate, hold_s, connections, timeout_s + more_s) <= loses + 1e-12


def test_endless_patience_loses_only_what_exceeds_the_capacity():
    assert queueing.mmc_timeout_share(5, 1, 10, inf) == 0
    assert queueing.mmc_timeout_share(20, 1, 10, inf) == pytest.approx(0.5)
    assert queueing.lost_share(queueing.load(20, 1, 10)) == 0.5
