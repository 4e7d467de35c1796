"""Slopes are those of the equations."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from costmodel.latency import group_s, prior
from costmodel.slopes import group_slopes_s
from costmodel.work import Rates, Work, groups_of
from tests.costmodel.strategies import machines, workloads

MACHINES = machines(cache_bytes=st.sampled_from([0.0, 1e5, 4e7]), slowness=st.floats(0.5, 2))
COEFFICIENTS = {name: median for name, (median, _) in prior("gpu").items()}


@given(workloads(), MACHINES, st.integers(1, 3))
def test_slopes_are_differences_of_the_seconds_along_each_coefficient(workload, machine, several):
    groups = groups_of(workload, host_runs_ahead=machine.host_runs_ahead)
    work, rates = Work.of(groups), Rates.of([machine] * len(groups))
    # Some depend on the group.
    coefficients = {
        name: value * np.linspace(1, 2, len(groups)) if number % several else value
        for number, (name, value) in enumerate(COEFFICIENTS.items())
    }
    here_s, slopes = group_slopes_s(work, rates, coefficients)
    assert here_s == pytest.approx(group_s(work, rates, coefficients), rel=1e-12)
    step = 1e-4
    for name, value in coefficients.items():
        up, down = (
            group_s(work, rates, {**coefficients, name: value * math.exp(by)})
            for by in (step, -step)
        )
        assert slopes[name] == pytest.approx((up - down) / (2 * step), abs=1e-5 * here_s.max()), (
            name
        )
