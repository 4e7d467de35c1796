"""Waiting in line, in closed form: Erlang, Allen and Cunneen, and the burst of a takt.

`load` is the offered load in erlang: arrival rate times mean service time. Waits are of the queue
alone, without the service.
"""

import math

import numpy as np
from scipy.stats import poisson


def erlang_b(load: float, servers: int) -> float:
    """Probability that all servers are busy where nobody waits: `B_k = a·B / (k + a·B)`, `B_0 = 1`.

    >>> erlang_b(1.0, 1)
    0.5
    """
    if not (0 <= load < math.inf and servers >= 0):
        raise ValueError(f"wanted load and servers of zero or more, got {load} and {servers}")
    blocked = 1.0
    for k in range(1, servers + 1):
        blocked = load * blocked / (k + load * blocked)
    return blocked


def erlang_c(load: float, servers: int) -> float:
    """Probability of waiting, M/M/c: `c·B / (c − a·(1 − B))`; one where the servers fall behind.

    >>> erlang_c(0.5, 1)
    0.5
    """
    if load >= servers:
        return 1.0
    blocked = erlang_b(load, servers)
    return servers * blocked / (servers - load * (1 - blocked))


def wait_tail(after_s: float, load: float, servers: int, service_s: float) -> float:
    """Probability of waiting longer than `after_s`, M/M/c: `C · exp(−(c − a)·t / s)`."""
    if load >= servers:
        return 1.0
    return erlang_c(load, servers) * math.exp(-(servers - load) * after_s / service_s)


def mean_wait_s(load: float, servers: int, service_s: float) -> float:
    """Mean wait, M/M/c: `C·s / (c − a)`; infinite where the servers fall behind."""
    if load >= servers:
        return math.inf
    return erlang_c(load, servers) * service_s / (servers - load)


def allen_cunneen_s(
    load: float,
    servers: int,
    service_s: float,
    *,
    arrival_variation: float,
    service_variation: float,
) -> float:
    """Mean wait, G/G/c: that of M/M/c times `(Ca² + Cs²) / 2` (Allen and Cunneen).

    Variations are squared coefficients of variation. Exact for M/G/1 and M/M/c.

    >>> allen_cunneen_s(0.5, 1, 1.0, arrival_variation=1.0, service_variation=0.0)
    0.5
    """
    factor = (arrival_variation + service_variation) / 2
    return factor * mean_wait_s(load, servers, service_s) if factor else 0.0


def md1_wait_s(load: float, service_s: float) -> float:
    """Mean wait for one server with a fixed service time: `ρ·s / (2·(1 − ρ))`.

    >>> md1_wait_s(0.5, 1.0)
    0.5
    """
    return math.inf if load >= 1 else load * service_s / (2 * (1 - load))


def mdc_wait_s(load: float, servers: int, service_s: float) -> float:
    """Mean wait for fixed service times and several servers, exactly (Crommelin 1932).

    Who is served now is gone one service time later: `N' = max(N − c, 0) + Poisson(a)`. Its steady
    state, cut off where it has died out, gives the mean queue, and Little's law the wait.

    >>> round(mdc_wait_s(0.5, 1, 1.0), 9)
    0.5
    """
    if load >= servers:
        return math.inf
    size = servers + math.ceil(30 / (1 - load / servers))
    arrive = poisson.pmf(np.arange(size), load)
    step = np.zeros((size, size))
    for state in range(size):
        left = max(state - servers, 0)
        step[state, left:] = arrive[: size - left]
    # One equation says that the shares sum to one.
    equations = step.T - np.eye(size)
    equations[-1] = 1.0
    shares = np.linalg.solve(equations, np.eye(size)[-1])
    queue = float(np.maximum(np.arange(size) - servers, 0) @ shares)
    return queue / load * service_s if load else 0.0


def many_servers(load: float, servers: int) -> float:
    """How much longer a wait for fixed service times is than half that of M/M/c, as a share.

    `(1 − ρ)·(c − 1)·(√(4 + 5c) − 2) / (16·ρ·c)` (Cosmetatos 1976); nothing for one server. At most
    `(c − 1) / (c + 1)`, which is exact as the load goes to zero: who waits then waits for the
    first of c uniform remainders, 1 / (c + 1), and 1 / c where services are exponential.
    """
    busy = load / servers
    most = (servers - 1) / (servers + 1)
    if not busy:
        return most
    heavy = (1 - busy) * (servers - 1) * (math.sqrt(4 + 5 * servers) - 2) / (16 * busy * servers)
    return min(most, heavy)


def mgc_wait_s(load: float, servers: int, service_s: float, service_variation: float) -> float:
    """Mean wait, M/G/c: between the waits for fixed and for exponential services, by variation.

    `(1 − Cs²)·W(M/D/c) + Cs²·W(M/M/c)` (Cosmetatos, Page), with the wait for fixed services of
    `many_servers`; above a variation of one, that of Allen and Cunneen.

    >>> mgc_wait_s(0.5, 1, 1.0, 0.0)
    0.5
    """
    random_s = mean_wait_s(load, servers, service_s)
    if service_variation >= 1 or not math.isfinite(random_s):
        return random_s * (1 + service_variation) / 2
    fixed_s = random_s / 2 * (1 + many_servers(load, servers))
    return (1 - service_variation) * fixed_s + service_variation * random_s


def wait_quantile_s(
    share: float,
    load: float,
    servers: int,
    service_s: float,
    *,
    arrival_variation: float = 1.0,
    service_variation: float = 1.0,
) -> float:
    """The wait that `share` of the arrivals do not exceed, G/G/c; infinite if servers fall behind.

    The tail of M/M/c with its time scaled by `(Ca² + Cs²) / 2`, so that its mean is the one of
    Allen and Cunneen, with the correction for many servers and at most that of M/M/c where both
    variations are one or less. Exact for M/M/c.

    >>> wait_quantile_s(0.99, 0.005, 1, 1.0)
    0.0
    """
    if not 0 < share < 1:
        raise ValueError(f"wanted a share between 0 and 1, got {share}")
    if load >= servers:
        return math.inf
    waiting = erlang_c(load, servers)
    if waiting <= 1 - share:
        return 0.0
    plain = (arrival_variation + service_variation) / 2
    steady = max(0.0, 1 - service_variation)
    factor = min(max(1.0, plain), plain * (1 + steady * many_servers(load, servers)))
    return factor * service_s / (servers - load) * math.log(waiting / (1 - share))


def burst_latency_s(burst: int, servers: int, batch: int, service_s: float) -> float:
    """Until the last image of a burst is done: `ceil(burst / (c·batch))` batches, one on another.

    The worst case of cameras in step. A batch that is not full takes as long as a full one.

    >>> burst_latency_s(burst=40, servers=2, batch=8, service_s=0.01)
    0.03
    """
    return -(-burst // (servers * batch)) * service_s


def batched_quantile_s(
    share: float,
    arrivals_per_s: float,
    servers: int,
    batch: int,
    service_s: float,
    *,
    service_variation: float,
) -> float:
    """Wait that `share` of random arrivals do not exceed where a free server takes up to `batch`.

    Nobody waits for a batch to fill. The smaller of two bounds: every image its own batch; or one
    batch in service, then a queue of full batches, which come `batch` times less often and, in
    both variations, `batch` times more evenly. `service_s` is that of a full batch.
    """
    alone, full = arrivals_per_s * service_s, arrivals_per_s / batch * service_s
    unbatched_s = wait_quantile_s(
        share, alone, servers, service_s, service_variation=service_variation
    )
    batched_s = service_s + wait_quantile_s(
        share,
        full,
        servers,
        service_s,
        arrival_variation=1 / batch,
        service_variation=service_variation / batch,
    )
    return min(unbatched_s, batched_s)
