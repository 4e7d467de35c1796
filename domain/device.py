"""A device as its data sheet gives it, each figure with source, date and confidence."""

from typing import Literal

from pydantic import Field, model_validator

from domain.record import (
    Figure,
    Identifier,
    Positive,
    Precision,
    Record,
    Sentence,
    Unknown,
)

DeviceClass = Literal["dc_gpu", "consumer_gpu", "pro_gpu", "edge", "cpu"]

# Which dense peak a precision runs at, best first. Autocast multiplies in half precision; tf32 has
# its own units. Where a device has none of them, the precision is refused.
PEAK_OF: dict[Precision, tuple[Precision, ...]] = {
    "fp32": ("fp32",),
    "tf32": ("tf32",),
    "fp16": ("fp16",),
    "bf16": ("bf16",),
    "int8": ("int8",),
    "amp_fp16": ("fp16",),
    "amp_bf16": ("bf16",),
}

BYTES_OF: dict[Precision, int] = {
    "fp32": 4,
    "tf32": 4,
    "fp16": 2,
    "bf16": 2,
    "int8": 1,
    "amp_fp16": 2,
    "amp_bf16": 2,
}

# Autocast keeps the weights in fp32.
WEIGHT_BYTES_OF: dict[Precision, int] = {**BYTES_OF, "amp_fp16": 4, "amp_bf16": 4}


class DeviceSpec(Record):
    """One device in one power mode. Peaks are dense, never the sparse marketing figure."""

    id: Identifier
    name: Sentence
    device_class: DeviceClass
    family: Sentence
    parallel_units: int | None = None
    boost_hz: Figure | None = None
    peak_flop_per_s: dict[Precision, Figure]
    memory_bytes: Figure | Unknown
    memory_bytes_per_s: Figure
    cache_bytes: Figure | Unknown
    power_limit_w: Figure | Unknown
    idle_w: Figure | Unknown
    price_usd: Figure | Unknown
    price_basis: str = ""
    price_date: str = ""
    form_factor: str = ""
    host_requirement: str = ""
    notes: str = ""
    is_measured: bool = Field(
        default=False, description="its rates are what fixed kernels reached, no data sheet's"
    )
    least_power_cap_w: Figure | None = None
    power_cap_w: Positive | None = Field(
        default=None, description="what its owner holds it to; no data sheet says so"
    )
    nvml_name: str | None = Field(
        default=None, description="what the driver's name of this device contains"
    )

    @model_validator(mode="after")
    def _can_compute(self) -> "DeviceSpec":
        if "fp32" not in self.peak_flop_per_s:
            raise ValueError(f"wanted an fp32 peak for {self.id}, got {sorted(self.precisions)}")
        return self

    @property
    def most_w(self) -> float | Unknown:
        """The most that it may draw, in watts: its limit, or what its owner holds it to."""
        if isinstance(self.power_limit_w, Unknown) or self.power_cap_w is None:
            known = self.power_limit_w
            return known if isinstance(known, Unknown) else known.value
        return min(self.power_limit_w.value, self.power_cap_w)

    def held_to(self, power_cap_w: float | None) -> "DeviceSpec":
        """The same device under a power cap, in watts; None leaves it as it is."""
        if power_cap_w is None:
            return self
        fields = {name: getattr(self, name) for name in DeviceSpec.model_fields}
        return DeviceSpec(**{**fields, "power_cap_w": power_cap_w})

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """Precisions whose dense peak is known."""
        return tuple(self.peak_flop_per_s)

    def peak_for(self, precision: Precision) -> Figure:
        """Dense peak, in FLOP/s, of the units that `precision` runs on.

        Raises ValueError where the catalogue has none.
        """
        for candidate in PEAK_OF[precision]:
            if candidate in self.peak_flop_per_s:
                return self.peak_flop_per_s[candidate]
        known = ", ".join(self.precisions)
        raise ValueError(f"no dense peak for {precision} on {self.name}; the catalogue has {known}")
