"""Closed formulas of queueing theory for pools of c connections, against which the simulation is checked. Pure.

Arrivals come at `rate_per_s` and hold a connection for `hold_s` on average; load = rate x hold / c. All formulas assume one
queue in order of arrival, a steady state and, unless they say otherwise, Poisson arrivals. At a load of 1 or more there is no
steady state: formulas for waits raise ValueError there, formulas for losses do not.

Sources: Erlang, "Solution of some problems in the theory of probabilities of significance in automatic telephone exchanges"
(1917), for B and C; Pollaczek (1930) and Khinchine (1932) for M/G/1; Lee and Longton, "Queueing processes associated with
airline passenger check-in", Operational Research Quarterly 10 (1959), for M/G/c; Allen, "Probability, Statistics, and Queueing
Theory" (1978), and Cunneen, for G/G/c; Barrer, "Queuing with impatient customers and ordered service", Operations Research 5
(1957), for M/M/c with a timeout.
"""

from __future__ import annotations

from math import exp, log

_TINY = 1e-9


def load(rate_per_s: float, hold_s: float, connections: int) -> float:
    """Return the load: the share of the connections that the arrivals keep busy; 1 means all of them."""
    return rate_per_s * hold_s / connections


def erlang_b(offered: float, connections: int) -> float:
    """Return the share of arrivals that find all connections busy where nobody can wait (M/G/c/c). `offered` = rate x hold.

    By the recursion B(0) = 1, B(c) = a B(c - 1) / (c + a B(c - 1)), which neither overflows nor cancels.
    """
    blocked = 1.0
    for number in range(1, connections + 1):
        blocked = offered * blocked / (number + offered * blocked)
    return blocked


def erlang_c(offered: float, connections: int) -> float:
    """Return the share of arrivals that have to wait in M/M/c. Raises ValueError at a load of 1 or more."""
    share = offered / connections
    if share >= 1:
        raise ValueError(f"at a load of {share:.0%} the queue never ends")
    blocked = erlang_b(offered, connections)
    return blocked / (1 - share * (1 - blocked))


def mmc_mean_wait_s(rate_per_s: float, hold_s: float, connections: int) -> float:
    """Return the mean wait in M/M/c, counting zero for those who do not wait: C(c, a) hold / (c - a)."""
    offered = rate_per_s * hold_s
    return erlang_c(offered, connections) * hold_s / (connections - offered)


def mmc_wait_quantile_s(q: float, rate_per_s: float, hold_s: float, connections: int) -> float:
    """Return quantile q (0 <= q < 1) of the wait in M/M/c, from P(wait > t) = C(c, a) exp(-(c - a) t / hold)."""
    return mgc_wait_quantile_s(q, rate_per_s, hold_s, connections, variation=1.0)


def mgc_mean_wait_s(rate_per_s: float, hold_s: float, connections: int, variation: float) -> float:
    """Return the mean wait in M/G/c by Lee and Longton: M/M/c's, times (1 + variation) / 2. Exact for one connection (M/G/1).

    `variation`: variance of the holds over their mean squared; 1 is exponential, 0 is constant.
    """
    return ggc_mean_wait_s(rate_per_s, hold_s, connections, variation, arrival_variation=1.0)


def ggc_mean_wait_s(
    rate_per_s: float, hold_s: float, connections: int, variation: float, arrival_variation: float
) -> float:
    """Return the mean wait in G/G/c by Allen and Cunneen: M/M/c's, times (arrival_variation + variation) / 2.

    `arrival_variation`: variance of the time between two arrivals over its mean squared; 1 is Poisson, 0 is a steady beat.
    """
    return mmc_mean_wait_s(rate_per_s, hold_s, connections) * (arrival_variation + variation) / 2


def mgc_wait_quantile_s(
    q: float, rate_per_s: float, hold_s: float, connections: int, variation: float, arrival_variation: float = 1.0
) -> float:
    """Return quantile q (0 <= q < 1) of the wait, assuming that as many wait as in M/M/c, and that their waits are
    exponential with the mean of Allen and Cunneen. Exact for M/M/c.
    """
    offered = rate_per_s * hold_s
    waiting = erlang_c(offered, connections)
    if waiting <= 1 - q:
        return 0.0
    scale_s = hold_s / (connections - offered) * (arrival_variation + variation) / 2
    return scale_s * log(waiting / (1 - q))


def mmc_timeout_share(rate_per_s: float, hold_s: float, connections: int, timeout_s: float) -> float:
    """Return the share of arrivals that give up after waiting `timeout_s`, in M/M/c in order of arrival, at any load (Barrer).

    The wait that an arrival would need, w, has the density A exp(-k w) up to the timeout, k = (c - a) / hold, and
    decays with c / hold beyond it, where nobody joins any more; an arrival that would need more than the timeout gives up.
    """
    offered, capacity_per_s = rate_per_s * hold_s, connections / hold_s
    # All relative to the probability that c - 1 are lent; above the capacity also to exp(-k timeout), which would overflow.
    term = some_free = 1.0
    for number in range(connections - 1, 0, -1):
        term *= number / offered
        some_free += term
    decay = abs(capacity_per_s - rate_per_s)
    damped = exp(-decay * timeout_s)
    within = timeout_s if decay * timeout_s < _TINY else (1 - damped) / decay
    beyond = 1 / capacity_per_s
    if capacity_per_s >= rate_per_s:
        beyond *= damped
    else:
        some_free *= damped
    return rate_per_s * beyond / (some_free + rate_per_s * (within + beyond))


def mmc_shed_share(rate_per_s: float, hold_s: float, connections: int, max_waiting: int) -> float:
    """Return the share of arrivals that find c connections busy and `max_waiting` waiting: M/M/c/(c + max_waiting), any load."""
    share, refused = load(rate_per_s, hold_s, connections), erlang_b(rate_per_s * hold_s, connections)
    for _ in range(max_waiting):
        refused = share * refused / (1 + share * refused)
    return refused


def lost_share(load: float) -> float:
    """Return the share of arrivals that no system could serve: what exceeds the capacity (the fluid limit, any law)."""
    return max(0.0, 1 - 1 / load) if load > 0 else 0.0
