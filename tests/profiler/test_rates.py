"""What fixed kernels reach: known in every precision that the device has, else a reason."""

import time

import torch

from domain.record import Unknown
from profiler.environment import _best_s, measured_rates


def test_rates_are_measured_in_both_precisions():
    rates = measured_rates("cpu")
    assert rates.gemm_flop_per_s > 0
    assert rates.peak_flop_per_s("fp32") == rates.gemm_flop_per_s
    assert rates.peak_flop_per_s("bf16") == rates.gemm_bf16_flop_per_s
    assert rates.peak_flop_per_s("amp_bf16") == rates.gemm_bf16_flop_per_s
    assert isinstance(rates.peak_flop_per_s("int8"), Unknown)


def test_a_device_without_bf16_gives_the_reason(monkeypatch):
    product = torch.mm

    def refusing(left, right, **options):
        if left.dtype == torch.bfloat16:
            raise RuntimeError("not implemented\nfor 'BFloat16'")
        return product(left, right, **options)

    monkeypatch.setattr(torch, "mm", refusing)
    peak = measured_rates("cpu").gemm_bf16_flop_per_s
    assert isinstance(peak, Unknown)
    assert peak.reason.endswith("not implemented for 'BFloat16'")


def test_a_kernel_that_takes_long_is_not_repeated_twelve_times():
    began: list[float] = []

    def slow():
        began.append(time.perf_counter())
        time.sleep(0.02)

    assert _best_s("cpu", slow, most_s=0.01) >= 0.02
    assert len(began) < 4
