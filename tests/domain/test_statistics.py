import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from domain.statistics import (
    LEAST_SAMPLES_OF,
    median,
    median_of_runs,
    relative_errors,
    relative_spread,
    share_interval,
    upper_percentile,
)

positive = st.floats(min_value=1e-6, max_value=1e6)
several = st.lists(positive, min_size=1, max_size=30)


@given(
    st.integers(min_value=1, max_value=10_000), st.data(), st.sampled_from([0.5, 0.9, 0.95, 0.99])
)
def test_the_interval_of_a_share_is_the_one_that_scipy_gives(count, data, level):
    hits = data.draw(st.integers(min_value=0, max_value=count))
    exact = binomtest(hits, count).proportion_ci(level, method="exact")
    seen = share_interval(hits, count, level)
    assert (seen.low, seen.high) == pytest.approx((exact.low, exact.high), abs=1e-9)


@pytest.mark.parametrize(("hits", "count"), [(0, 0), (-1, 5), (6, 5)])
def test_a_share_of_nothing_has_no_interval(hits, count):
    with pytest.raises(ValueError, match="hits out of one or more"):
        share_interval(hits, count)


@given(st.integers(min_value=11, max_value=800), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_the_upper_percentile_is_the_smallest_rank_that_bounds_with_99_percent(count, share):
    came = upper_percentile([float(i) for i in range(1, count + 1)], share)
    if count < LEAST_SAMPLES_OF[share]:
        assert came is None
        return
    # P(Binomial(n, share) < k) is binom.cdf(k - 1, n, share).
    ranks = np.arange(1, count + 1)
    wanted = ranks[binom.cdf(ranks - 1, count, share) >= 0.99][0]
    assert came == wanted


@pytest.mark.parametrize("share", LEAST_SAMPLES_OF)
def test_the_least_samples_allow_exactly_one_exceedance(share):
    least = LEAST_SAMPLES_OF[share]
    # One sample above the bound: the bound is the second largest, k = n - 1.
    assert binom.cdf(least - 2, least, share) >= 0.99
    assert binom.cdf(least - 3, least - 1, share) < 0.99


@given(st.permutations(list(range(1, 65))))
def test_the_upper_percentile_does_not_depend_on_the_order(samples):
    assert upper_percentile([float(each) for each in samples], 0.9) == 63.0


@given(several, positive)
def test_the_median_and_the_spread_scale_with_the_unit(samples, factor):
    scaled = [factor * each for each in samples]
    assert median(scaled) == pytest.approx(factor * median(samples))
    assert relative_spread(scaled) == pytest.approx(relative_spread(samples), rel=1e-6, abs=1e-9)


def test_the_median_of_nothing_is_refused():
    with pytest.raises(ValueError, match="one sample at least"):
        median([])


@given(st.lists(several, min_size=1, max_size=6))
def test_the_interval_over_runs_lies_between_the_run_medians_and_is_repeatable(runs):
    value, low, high = median_of_runs(runs, draws=200)
    medians = [median(run) for run in runs]
    assert min(medians) <= low <= high <= max(medians)
    assert low <= value <= high or len(runs) > 1
    assert median_of_runs(runs, draws=200) == (value, low, high)


def test_the_bootstrap_draws_runs_and_not_samples():
    # A thousand samples in two runs know no more than two numbers.
    _, low, high = median_of_runs([[1.0] * 1000, [3.0] * 1000])
    assert (low, high) == (1.0, 3.0)


def test_the_bootstrap_interval_covers_the_median_about_as_often_as_it_says():
    random = np.random.default_rng(7)
    covered = 0
    for draw in range(200):
        runs = random.lognormal(0.0, 0.1, size=(15, 1)).tolist()
        _, low, high = median_of_runs(runs, draws=400, seed=draw)
        covered += low <= 1.0 <= high
    assert 0.88 <= covered / 200 <= 1.0


@given(st.lists(st.tuples(positive, positive), min_size=1, max_size=10), positive)
def test_relative_errors_do_not_depend_on_the_unit(pairs, factor):
    predicted, seen = zip(*pairs, strict=True)
    errors = relative_errors(predicted, seen)
    scaled = relative_errors(np.multiply(factor, predicted), np.multiply(factor, seen))
    np.testing.assert_allclose(errors, scaled, rtol=1e-6, atol=1e-9)
    np.testing.assert_array_equal(relative_errors(seen, seen), 0)
