"""Peak memory from shapes: weights, and the most that is alive at once."""

import math

from costmodel.operators import Bytes, loads_of
from domain.device import DeviceSpec
from domain.record import Estimate, Unknown
from domain.units import GIGA
from domain.workload import Workload

# The framework's context, kernels and workspaces on a device with a driver of its own: an estimate
# between the 0.3 and 0.9 GB that CUDA contexts are commonly seen to take. Not measured here.
CONTEXT_BYTES = Estimate(value=0.55 * GIGA, low=0.3 * GIGA, high=0.9 * GIGA)
# Allocators round and fragment: what is reserved over what is allocated. An estimate.
RESERVED_OVER_ALLOCATED = Estimate(value=1.1, low=1.0, high=1.3)
# Spread of allocated bytes around the closed form (one workspace more or less).
ALLOCATED_LOG_SD = 0.05


def allocated_bytes(workload: Workload) -> float:
    """Most bytes of weights and tensors alive at once in one forward pass.

    Weights and the batch's images stay; each recursion keeps the residual of all tokens, its own
    copy of the active ones, and the larger of what attention and the MLP hold while they run:
    attention the norm's output, q, k, v and the result (5·d a token), the MLP its input and the
    hidden values before and after the activation (d + 2·d_ff a token).
    """
    net, size = workload.architecture, Bytes.of(workload.precision)
    weights = float(size.weight * net.parameters)
    images = float(4 * workload.batch * net.channels * net.image_size**2)
    everything = workload.batch * net.tokens
    widest = max(5 * net.width, net.width + 2 * net.mlp_width)
    if net.mlp == "swiglu":
        widest = max(widest, net.width + 4 * net.mlp_width)
    plain = size.element * everything * net.width + size.operand * everything * widest
    peaks: list[float] = [plain] if net.layers_before or net.layers_after else []
    is_copied = net.is_routed and workload.executor != "masked"
    for load in loads_of(workload.routing, workload.batch, workload.executor, net):
        kept = size.element * (everything + is_copied * load.tokens) * net.width
        peaks.append(kept + size.operand * load.tokens * (widest + is_copied * net.width))
    return weights + images + max(peaks)


def peak_estimate(workload: Workload, extra_log_sd: float = 0.0) -> Estimate:
    """Allocated bytes at the peak, with the spread seen around the closed form."""
    value = allocated_bytes(workload)
    width = 1.645 * math.hypot(ALLOCATED_LOG_SD, extra_log_sd)
    return Estimate(value=value, low=value * math.exp(-width), high=value * math.exp(width))


def fit_probability(peak: Estimate, device: DeviceSpec) -> float | Unknown:
    """P(the workload fits): context and what the allocator reserves against the device's memory.

    Need and margin are taken as log-normal around their estimates.
    """
    if isinstance(device.memory_bytes, Unknown):
        return device.memory_bytes
    reserved = peak.value * RESERVED_OVER_ALLOCATED.value
    need = reserved + (CONTEXT_BYTES.value if device.device_class != "cpu" else 0.0)
    log_sd = math.hypot(
        math.log(peak.high / peak.value) / 1.645,
        math.log(RESERVED_OVER_ALLOCATED.high / RESERVED_OVER_ALLOCATED.value) / 1.645,
    )
    distance = math.log(device.memory_bytes.value / need) / log_sd
    return 0.5 * (1 + math.erf(distance / math.sqrt(2)))
