"""Peak memory from shapes: weights, and the most that is alive at once."""

import math
from functools import partial

from costmodel.loads import loads_of, moved_tokens
from costmodel.operators import Bytes, Way
from domain.architecture import Architecture
from domain.device import DeviceSpec
from domain.record import Estimate, Unknown
from domain.units import GIGA
from domain.workload import Workload

# The framework's context, kernels and workspaces on a device with a driver of its own: an estimate
# between the 0.3 and 0.9 GB that CUDA contexts are commonly seen to take. Not measured here.
CONTEXT_BYTES = Estimate(value=0.55 * GIGA, low=0.3 * GIGA, high=0.9 * GIGA)
# Allocators round and fragment: what is reserved over what is allocated. An estimate.
RESERVED_OVER_ALLOCATED = Estimate(value=1.1, low=1.0, high=1.3)
# Masks, ranks and rows of a routed token: a few 64-bit numbers.
INDEX_BYTES = 48.0
# Spread of allocated bytes around the closed form (one workspace more or less).
ALLOCATED_LOG_SD = 0.03
# Spreads above the middle of a normal that 99 % lie below.
NORMAL_99 = 2.326


def allocated_bytes(workload: Workload) -> float:
    """Most bytes of weights, images and tensors alive at once in one forward pass.

    A layer holds its input, the sum after attention, a norm's output and the hidden values before
    and after the activation: (3·d + 2·d_ff) a token; where operators are fused the activation writes
    over what it reads (published batches of compiled networks would else not have fitted). Attention
    that is not fused holds queries, keys and values, and scores before and after softmax. A recursion
    keeps the state of all tokens beside that and, when packed, the gathered rows it began with and those
    that the recursion before moved.
    """
    net, size = workload.architecture, Bytes.of(workload.precision)
    way = Way.of(workload.runtime, workload.states, workload.attention)
    of_layer = partial(_layer_bytes, net, size=size, way=way)
    weights = float(size.weight * net.parameters)
    images = float(4 * workload.batch * net.channels * net.image_size**2)
    everything = float(workload.batch * net.tokens)
    peaks = (
        [of_layer(everything, everything * net.tokens)]
        if net.layers_before or net.layers_after
        else []
    )
    state = size.element * everything * net.width
    loads = loads_of(workload.routing, workload.batch, workload.executor, net)
    # What the recursion before moved is kept for the router, unless that is the state itself.
    before = 0.0
    for load, moved in zip(loads, moved_tokens(workload), strict=True):
        # The first layer's input is the state or the gathered rows; later ones have their own.
        # Where all tokens go on, nothing is gathered.
        is_whole = load.tokens == everything
        is_copied = net.is_routed and workload.executor != "masked" and not is_whole
        kept = state if is_copied or net.shared_layers > 1 else 0.0
        if is_copied and net.shared_layers > 1:
            kept += size.element * load.tokens * net.width
        if net.is_routed and workload.executor != "masked":
            kept += size.element * before * net.width
        before = 0.0 if is_whole else moved
        if net.is_routed and net.keys_and_values == "recursive-sharing":
            kept += 2 * size.operand * loads[0].tokens * net.width * net.shared_layers
        peaks.append(kept + of_layer(load.tokens, load.squares))
    indices = INDEX_BYTES * everything * net.is_routed
    return weights + images + indices + max(peaks)


def _layer_bytes(
    net: Architecture, tokens: float, squares: float, *, size: Bytes, way: Way
) -> float:
    buffers = (2 if net.mlp == "swiglu" else 1) * (1 if way.fuses else 2)
    most = size.operand * buffers * net.mlp_width * tokens
    if way.attention == "unfused":
        softmax = size.operand if way.fuses else size.element
        scores = net.heads * squares * (size.operand + softmax)
        most = max(most, size.operand * 3 * net.width * tokens + scores)
    return tokens * (size.element * 2 + size.operand) * net.width + most


def peak_estimate(workload: Workload, extra_log_sd: float = 0.0) -> Estimate:
    """Allocated bytes at the peak, with the spread seen around the closed form."""
    value = allocated_bytes(workload)
    width = 1.645 * math.hypot(ALLOCATED_LOG_SD, extra_log_sd)
    return Estimate(value=value, low=value * math.exp(-width), high=value * math.exp(width))


def fit_probability(peak: Estimate, device: DeviceSpec) -> float | Unknown:
    """P(the workload fits): context and what the allocator reserves against the device's memory.

    The need is taken as log-normal around its estimate; the context at its middle.
    """
    if isinstance(device.memory_bytes, Unknown):
        return device.memory_bytes
    need, log_sd = _need(peak, on_cpu=device.device_class == "cpu")
    distance = math.log(device.memory_bytes.value / need) / log_sd
    return 0.5 * (1 + math.erf(distance / math.sqrt(2)))


def safe_bytes(peak: Estimate, *, on_cpu: bool) -> float:
    """The least memory of which the workload is said to fit with a probability of 99 %."""
    need, log_sd = _need(peak, on_cpu=on_cpu)
    return need * math.exp(NORMAL_99 * log_sd)


def _need(peak: Estimate, *, on_cpu: bool) -> tuple[float, float]:
    reserved = peak.value * RESERVED_OVER_ALLOCATED.value
    log_sd = math.hypot(
        math.log(peak.high / peak.value) / 1.645,
        math.log(RESERVED_OVER_ALLOCATED.high / RESERVED_OVER_ALLOCATED.value) / 1.645,
    )
    return reserved + (0.0 if on_cpu else CONTEXT_BYTES.value), log_sd
