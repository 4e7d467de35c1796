"""Which software a published row ran, and how it may differ from what a buyer would install today. Pure.

Runtimes are few names for much software: "engine" has been FasterTransformer and is TensorRT, "eager" is
every torch since 1.10 and everybody's code on it. What is fitted is today's; other software has an offset and
deviations of its own, so that its rows tell of devices and shapes without being taken for today's.
"""

from collections.abc import Mapping

from domain.catalogue import PublishedRow
from domain.workload import Attention, attention_of_torch

# timm or bare encoders on torch 2; TensorRT from 8.4 on, AITemplate.
TODAY = "today"
TORCH_1 = "torch-1"
# What a row's note begins with, where it does not run today's; what is left goes by torch's version.
OF_NOTES: Mapping[str, str] = {
    "FasterTransformer": "fastertransformer",
    "Paddle": "paddle",
    "tensorflow+XLA": "xla",
    "torchscript": "torchscript",
    "torch 1.x": "jeonsworld",
    "transformers": "transformers",
}
# Software whose attention is two products with scores in memory between them. FasterTransformer fuses
# them in half precision and int8, up to 384 tokens.
UNFUSED = ("paddle", "xla", "torchscript", "jeonsworld", "transformers", TORCH_1)
MOST_FUSED_TOKENS = 384
# How other software may differ from today's beside an offset: log spreads before the data.
SOFTWARE_ROWS_LOG_SD = {
    "gemm_efficiency": 0.3,
    "inner_step_s": 0.7,
    "attention_efficiency": 0.7,
    "activation_efficiency": 0.5,
    "elementwise_efficiency": 0.5,
    "call_s": 0.7,
}


def software_of(row: PublishedRow) -> str:
    """What ran a published row; `TODAY` if a buyer would install it now."""
    for beginning, name in OF_NOTES.items():
        if row.note.startswith(beginning):
            return name
    is_fused = attention_of_torch(row.torch_version, row.runtime) == "fused"
    return TODAY if is_fused else TORCH_1


def attention_of(row: PublishedRow, tokens: int) -> Attention:
    """How the software of a published row attends to so many tokens."""
    software = software_of(row)
    if software == "fastertransformer":
        is_fused = row.precision not in ("fp32", "tf32") and tokens <= MOST_FUSED_TOKENS
        return "fused" if is_fused else "unfused"
    return "unfused" if software in UNFUSED else "fused"


def others_of(softwares: set[str]) -> tuple[str, ...]:
    """Those that deviate: all but today's, or but the first where none of today's is there."""
    ordered = sorted(softwares, key=lambda name: (name != TODAY, name))
    return tuple(ordered[1:])


def covariate_of_software(name: str) -> str:
    """The covariate that is 1 where that software ran and 0 elsewhere."""
    return f"software:{name}"
