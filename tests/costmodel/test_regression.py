"""A fit on data that the model made gives the coefficients back."""

import numpy as np
import pytest

from costmodel.latency import Machine, Rates, Work, group_s, groups_of, prior
from costmodel.regression import Observations, posterior_of, spread_of
from domain.architecture import Architecture
from domain.routing import RoutingDistribution
from domain.workload import Workload

MACHINE = Machine(peak_flop_per_s=1e11, memory_bytes_per_s=2e10, units=2.0, host_runs_ahead=False)
TRUTH = {
    "gemm_efficiency": 0.7,
    "gemm_half": 500.0,
    "attention_efficiency": 0.3,
    "traffic_efficiency": 0.6,
    "elementwise_efficiency": 1.4,
    "call_s": 9e-6,
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


def test_noiseless_data_give_the_coefficients_back():
    vague = {name: (median, 10.0) for name, (median, _) in prior("cpu").items()}
    found = posterior_of(observations(), vague).values
    assert found == pytest.approx(TRUTH, rel=0.02)


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
