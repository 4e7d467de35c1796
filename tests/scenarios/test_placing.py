"""Hosts that fail as units: laws, and every way to fill hosts one after another as brute force."""

from itertools import product
from math import inf, prod

from hypothesis import given, settings
from hypothesis import strategies as st

from domain.scenario import Host, Promise
from scenarios.placing import devices_to_rent, most_in_a_host, placements_of, spares_for
from tests.scenarios.records import demand

shares = st.sampled_from([0.0, 0.5, 0.9, 0.99, 0.999])
ups = st.sampled_from([0.9, 0.97, 0.995])
counts = st.integers(1, 60)
in_hosts = st.integers(1, 12)


def promise(failures, availability, up):
    return Promise(
        p99_latency_s=1.0,
        spare_devices=failures,
        availability=availability,
        device_availability=up,
    )


promises = st.builds(promise, st.integers(0, 3), shares, ups)


def filled(devices, per_host):
    full, rest = divmod(devices, per_host)
    return [per_host] * full + [rest] * (rest > 0)


def keeps(sizes, servers, wanted):
    """Whether those hosts keep so many devices running: every combination of hosts up and down."""
    if sum(sorted(sizes)[: max(0, len(sizes) - wanted.spare_devices)]) < servers:
        return False
    ups_ = [wanted.device_availability**size for size in sizes]
    enough = sum(
        prod(up if is_up else 1 - up for up, is_up in zip(ups_, state, strict=True))
        for state in product([True, False], repeat=len(sizes))
        if sum(size for size, is_up in zip(sizes, state, strict=True) if is_up) >= servers
    )
    return enough >= wanted.availability - 1e-12


@given(counts, promises)
def test_one_device_a_host_fails_one_by_one(servers, wanted):
    assert spares_for(servers, wanted, 1) == spares_for(servers, wanted)
    assert spares_for(servers, wanted) >= wanted.spare_devices


@given(counts, promises, in_hosts, st.integers(1, 4))
def test_fuller_hosts_never_need_fewer_devices(servers, wanted, per_host, times):
    if wanted.device_availability ** (per_host * times) >= 0.5:
        alone = spares_for(servers, wanted)
        some = spares_for(servers, wanted, per_host)
        assert alone <= some <= spares_for(servers, wanted, per_host * times)


@given(counts, counts, promises, in_hosts)
def test_more_servers_never_need_fewer_devices_in_hosts(servers, more, wanted, per_host):
    per_host = most_in_a_host(wanted, per_host)
    few, many = (n + spares_for(n, wanted, per_host) for n in (servers, servers + more))
    assert few <= many


@given(counts, counts, promises, promises, in_hosts)
def test_more_failures_and_more_availability_never_need_fewer(servers, more, one, other, per_host):
    per_host = min(most_in_a_host(each, per_host) for each in (one, other))
    easy, hard = (
        promise(
            of(one.spare_devices, other.spare_devices),
            of(one.availability, other.availability),
            one.device_availability,
        )
        for of in (min, max)
    )
    assert spares_for(servers, easy, per_host) <= spares_for(servers, hard, per_host)


@settings(max_examples=30)
@given(st.integers(1, 8), promises, st.integers(2, 4))
def test_the_least_devices_keep_it_and_no_fewer_do(servers, wanted, per_host):
    least = servers + spares_for(servers, wanted, per_host)
    alone = servers + spares_for(servers, wanted)
    if len(filled(least, per_host)) <= 12:
        assert keeps(filled(least, per_host), servers, wanted)
        for devices in range(alone, least):
            assert not keeps(filled(devices, per_host), servers, wanted)


def partitions(devices, largest, places):
    """Every way to put so many devices into hosts, fullest first."""
    if not devices:
        yield []
    elif places:
        for size in range(min(devices, largest), 0, -1):
            for rest in partitions(devices - size, size, places - 1):
                yield [size, *rest]


@settings(max_examples=20)
@given(
    st.integers(1, 6), st.integers(0, 2), st.sampled_from([0.9, 0.99]), ups, st.integers(2, 4),
    st.floats(0, 10),
)  # fmt: skip
def test_no_way_to_fill_hosts_is_a_tenth_cheaper(
    servers, failures, availability, up, places, host_price
):
    wanted, one = promise(failures, availability, up), demand(1, 1.0)
    ours = min(
        each.devices[one] + host_price * each.hosts[one]
        for each in placements_of({one: servers}, wanted, Host(devices_per_host=places))
    )
    least = inf
    for devices in range(servers, servers + 8):
        for sizes in partitions(devices, places, 10):
            cost = devices + host_price * len(sizes)
            if cost < least and keeps(sizes, servers, wanted):
                least = cost
    assert ours <= 1.1 * least


@given(counts, promises, in_hosts, st.floats(0, 20))
def test_more_servers_never_cost_less_whatever_a_host_costs(servers, wanted, places, host_price):
    one, costs = demand(1, 1.0), []
    for count in (servers, servers + 1):
        placements = placements_of({one: count}, wanted, Host(devices_per_host=places))
        costs.append(min(each.devices[one] + host_price * each.hosts[one] for each in placements))
        assert placements
    assert costs[0] <= costs[1]


@given(counts, st.integers(1, 50), promises)
def test_instances_of_one_device_are_rented_as_devices_are_owned(servers, sites, wanted):
    alone = sites * (servers + spares_for(servers, wanted))
    assert devices_to_rent(servers, sites, wanted, 1) >= alone
    assert devices_to_rent(servers, 1, wanted, 1) == servers + spares_for(servers, wanted)
    assert devices_to_rent(servers, sites, wanted, 8) >= alone


def test_one_host_with_its_spares_is_no_spare():
    wanted = promise(1, 0.99, 0.995)
    assert 4 + spares_for(4, wanted, 4) == 8
    one = demand(1, 1.0)
    ways = placements_of({one: 1}, wanted, Host(devices_per_host=4))
    assert [(each.per_host, each.devices[one], each.hosts[one]) for each in ways] == [(1, 2, 2)]


def test_a_host_that_is_mostly_down_is_not_filled():
    assert most_in_a_host(promise(0, 0.5, 0.9), 64) == 6
