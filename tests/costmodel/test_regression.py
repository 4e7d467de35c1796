"""A fit on data that the model made gives the coefficients back."""

import numpy as np
import pytest

from costmodel.latency import group_s, prior
from costmodel.regression import Deviation, Observations, posterior_of, spread_of
from costmodel.work import Machine, Rates, Work, groups_of
from domain.architecture import Architecture
from domain.routing import RoutingDistribution
from domain.workload import Workload

MACHINE = Machine(peak_flop_per_s=1e11, memory_bytes_per_s=2e10, units=2.0, host_runs_ahead=False)
TRUTH = {
    "gemm_efficiency": 0.7,
    "inner_step_s": 2e-10,
    "rows_half": 8.0,
    "inner_half": 6.0,
    "columns_half": 15.0,
    "convolution_efficiency": 0.6,
    "attention_efficiency": 0.3,
    "attention_half": 15.0,
    "traffic_efficiency": 0.6,
    "norm_efficiency": 0.9,
    "activation_efficiency": 0.7,
    "elementwise_efficiency": 1.4,
    "gather_efficiency": 0.4,
    "cache_reach": 1.0,
    "call_s": 9e-6,
    "attention_calls": 1.333,
    "gather_calls": 1.667,
    "convolution_calls": 8.889,
    "stage_s": 2.5e-5,
}


def observations(shift_of_device=(0.0,), noise=0.0):
    groups, target, seconds, design = [], [], [], []
    random = np.random.default_rng(7)
    for device, shift in enumerate(shift_of_device):
        for width in (64, 128, 256):
            for image_size in (28, 56, 112):
                for batch in (1, 4, 16):
                    net = Architecture.plain(
                        name="toy", depth=4, width=width, heads=4, image_size=image_size,
                        patch_size=4,
                    )  # fmt: skip
                    routing = RoutingDistribution.full(net.tokens, 1)
                    workload = Workload(architecture=net, batch=batch, routing=routing)
                    own = groups_of(workload, host_runs_ahead=False)
                    work, rates = Work.of(own), Rates.of([MACHINE] * len(own))
                    for group, took in zip(own, group_s(work, rates, TRUTH), strict=True):
                        groups.append(group)
                        target.append(len(seconds))
                        seconds.append(took * np.exp(shift + noise * random.standard_normal()))
                        design.append(
                            [float(device == each) for each in range(len(shift_of_device))]
                        )
    is_many = len(shift_of_device) > 1
    return Observations(
        work=Work.of(groups),
        rates=Rates.of([MACHINE] * len(groups)),
        target=np.array(target),
        seconds=np.array(seconds),
        log_sd=np.full(len(seconds), 0.02),
        design=np.array(design) if is_many else np.zeros((len(seconds), 0)),
        devices=len(shift_of_device) if is_many else 0,
    )


def test_noiseless_data_give_the_seconds_back_and_what_they_identify():
    seen = observations()
    posterior = posterior_of(seen, prior("cpu"))
    assert np.abs(posterior.residuals).max() < 0.02
    # Sizes of one kind of network do not tell every coefficient from every other.
    deviations = np.sqrt(np.diag(posterior.covariance))
    for name, deviation in zip(posterior.names, deviations, strict=True):
        if deviation < 0.02:
            assert posterior.values[name] == pytest.approx(TRUTH[name], rel=0.1), name


def test_slopes_are_those_of_the_seconds():
    seen = observations()
    logs = {name: np.log(value) for name, value in TRUTH.items()}
    slopes = seen.log_slopes(logs, np.zeros(0))
    for column, name in enumerate(logs):
        moved = seen.predicted_s({**logs, name: logs[name] + 1e-4}, np.zeros(0))
        there = np.log(moved / seen.predicted_s(logs, np.zeros(0))) / 1e-4
        assert slopes[:, column] == pytest.approx(there, abs=1e-3)


def test_an_observation_that_is_not_believed_moves_nothing():
    seen = observations(noise=0.01)
    left_out = np.arange(len(seen.seconds)) == 5
    seconds = np.where(left_out, seen.seconds * 10, seen.seconds)
    wild = Observations(**{**vars(seen), "seconds": seconds})
    calm, shaken = (
        posterior_of(each.without(left_out), prior("cpu")).log_values for each in (seen, wild)
    )
    assert shaken == pytest.approx(calm, abs=1e-6)


def test_a_deviation_is_found_where_its_covariate_is_one():
    seen = observations()
    is_other = (np.arange(seen.work.groups) % 2).astype(float)
    other = {**TRUTH, "gemm_efficiency": TRUTH["gemm_efficiency"] * np.exp(-0.3 * is_other)}
    known = Observations(
        **{
            **vars(seen),
            "seconds": group_s(seen.work, seen.rates, other),
            "target": np.arange(seen.work.groups),
            "log_sd": np.full(seen.work.groups, 0.02),
            "design": np.zeros((seen.work.groups, 0)),
            "covariates": {"other": is_other},
            "deviations": (
                Deviation(coefficient="gemm_efficiency", covariate="other", log_sd=1.0),
            ),
        }
    )
    posterior = posterior_of(known, prior("cpu"))
    assert posterior.shifts == pytest.approx([-0.3], abs=0.03)
    here, there = (posterior.values_at({"other": each})["gemm_efficiency"] for each in (0.0, 1.0))
    assert there / here == pytest.approx(np.exp(-0.3), rel=0.03)


def test_noisy_data_give_coefficients_within_their_own_spread():
    posterior = posterior_of(observations(noise=0.02), prior("cpu"))
    deviations = np.sqrt(np.diag(posterior.covariance))
    truth = np.log([TRUTH[name] for name in posterior.names])
    assert (np.abs(posterior.log_values - truth) < 4 * deviations).all()


def test_devices_that_differ_by_a_factor_get_it_as_their_offset():
    posterior = posterior_of(observations(shift_of_device=(-0.3, 0.0, 0.3)), prior("cpu"))
    assert np.diff(posterior.offsets) == pytest.approx([0.3, 0.3], abs=0.01)
    assert 0.15 < posterior.offset_log_sd < 0.5


def test_one_wild_observation_moves_little():
    seen = observations(noise=0.01)
    seconds = seen.seconds.copy()
    seconds[5] *= 10
    wild = Observations(**{**vars(seen), "seconds": seconds})
    calm, shaken = (posterior_of(each, prior("cpu")).values for each in (seen, wild))
    assert shaken["gemm_efficiency"] == pytest.approx(calm["gemm_efficiency"], rel=0.03)


def test_the_spread_holds_nine_of_ten():
    residuals = np.random.default_rng(1).standard_normal(10_000) * 0.2
    assert spread_of(residuals) == pytest.approx(0.2, rel=0.05)


def test_of_what_is_found_from_several_starts_the_likeliest_is_kept():
    seen = observations(noise=0.02)
    names, spread = list(prior("cpu")), [log_sd for _, log_sd in prior("cpu").values()]
    believed = np.log([median for median, _ in prior("cpu").values()])

    def unlikely(posterior):
        z = posterior.residuals / seen.log_sd
        data = 2 * np.sum(np.sqrt(1 + z**2) - 1)
        return data + np.sum(((posterior.log_values - believed) / spread) ** 2)

    # So far off that the search stops on its way.
    lost = believed + 30 * np.array([name == "call_s" for name in names])
    alone = [posterior_of(seen, prior("cpu"), starts=[each]) for each in (believed, lost)]
    both = posterior_of(seen, prior("cpu"), starts=[lost, believed])
    assert unlikely(both) == pytest.approx(min(map(unlikely, alone)))
    assert unlikely(alone[0]) < unlikely(alone[1])
