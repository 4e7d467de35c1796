"""What the catalogue says: devices, networks, energy, cloud prices, and what others published.

The files lie in the folder beside this module; they are read once, when first asked for. Scales
that are not SI (GB, ms) end here.
"""

import functools
import re
import tomllib
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from pydantic import ValidationError

from domain import columns
from domain.architecture import Architecture
from domain.complaint import Complaint, CorruptFile, first_error, nearest
from domain.device import DeviceClass, DeviceSpec
from domain.prices import CloudPrice, CommitmentDiscount, EnergyRow
from domain.record import (
    Executor,
    Identifier,
    Positive,
    PositiveCount,
    Precision,
    Record,
    Runtime,
    Sentence,
)
from domain.units import GIGA, MILLI

FOLDER = Path(__file__).with_suffix("")

LONGEST_NAME = 200
LIST_DEVICES = "`python -m costmodel.predict --list-devices`"

RecordType = TypeVar("RecordType", bound=Record)


@dataclass(frozen=True)
class Resolved:
    """The device that a name stands for; `note` and `others` say what else it might have meant."""

    device: DeviceSpec
    asked: str
    others: tuple[str, ...]
    note: str


class PlainVit(Record):
    """One plain ViT of timm. `caveat` says which of its work the architecture does not hold."""

    architecture: Architecture
    pool: Literal["token", "avg", "map"]
    norm: Literal["norm", "fc_norm", "none"]
    parameters: PositiveCount
    has_exact_work: bool
    caveat: str


class PublishedRow(Record):
    """One measurement that others published. None where the source does not say.

    `as_model` is the network of the same shape in this catalogue, where the published name is
    another; `seq_len` is given instead of `image_size` for a bare encoder. Latency is per batch.
    """

    file: Identifier
    model: Sentence
    as_model: Identifier | None
    device_id: Identifier
    precision: Precision
    runtime: Runtime
    batch: PositiveCount | None
    image_size: PositiveCount | None
    seq_len: PositiveCount | None
    throughput_img_per_s: Positive
    latency_s: Positive | None
    torch_version: str
    layout: str
    note: str
    source_repo: Sentence
    source_path: Sentence
    source_commit: Sentence
    licence: Sentence


@functools.cache
def devices() -> dict[str, DeviceSpec]:
    """Every device by id, in the order of the files."""
    found: dict[str, DeviceSpec] = {}
    for device_class in get_args(DeviceClass):
        path = FOLDER / "devices" / f"{device_class}.toml"
        for id, block in _toml(path).items():
            if id in found:
                raise CorruptFile(f"{path}: {id} is already in another file")
            fields = {**block, "id": id, "device_class": device_class}
            found[id] = _made(DeviceSpec, path, id, fields)
    return found


def resolve_device(name: str) -> Resolved:
    """The device called `name`, by id or alias; letter case, `_` and spaces do not matter.

    >>> resolve_device("A100").device.id
    'a100-sxm-80'
    """
    folded = _folded(name)
    if folded in devices():
        return Resolved(device=devices()[folded], asked=name, others=(), note="")
    alias = _aliases().get(folded)
    if alias is None:
        known = nearest(folded, [*devices(), *_aliases()])
        raise Complaint(f"unknown device {name!r}; {known}; {LIST_DEVICES} lists all")
    if alias.device is None:
        raise Complaint(
            f"{name!r} does not say which device: {alias.why}; {LIST_DEVICES} lists all"
        )
    device = devices()[alias.device]
    note = ""
    if alias.others:
        others = ", ".join(alias.others)
        note = f"{name} is taken as {device.name}: {alias.why}; others: {others}"
    return Resolved(device=device, asked=name, others=alias.others, note=note)


def device_reported_as(driver_name: str) -> DeviceSpec | None:
    """The device whose driver gives this name, or None where the catalogue has none such.

    The name must end as the catalogue says: a Ti, a laptop GPU or a MIG slice is another device.

    >>> device_reported_as("NVIDIA A10G").id
    'a10g'
    """
    for device in devices().values():
        if device.nvml_name and driver_name.strip().endswith(device.nvml_name):
            return device
    return None


@functools.cache
def presets() -> dict[str, Architecture]:
    """The MoR-ViT networks that have a name."""
    path = FOLDER / "presets.toml"
    return {
        name: _made(Architecture, path, name, {**block, "name": name})
        for name, block in _toml(path).items()
    }


def plain_vits() -> dict[str, Architecture]:
    """Plain ViT, DeiT and DeiT-3 networks, by their name in timm."""
    return {name: vit.architecture for name, vit in plain_vit_rows().items()}


@functools.cache
def plain_vit_rows() -> dict[str, PlainVit]:
    """Plain networks with what timm counts and what their architecture leaves out."""
    path = FOLDER / "plain_vits.csv"
    rows: dict[str, PlainVit] = {}
    for line, cells in columns.rows_of(path, _PLAIN_VIT):
        name = cells["name"]
        if name in rows:
            raise CorruptFile(f"{path}:{line}: {name} is given twice")
        beside = {field: cells.pop(field) for field in PlainVit.model_fields if field in cells}
        shape = {**cells, "final_norm": beside["norm"] != "none", **_ONE_BLOCK}
        architecture = _made(Architecture, path, line, shape)
        rows[name] = _made(PlainVit, path, line, {**beside, "architecture": architecture})
    return rows


@functools.cache
def refused_vits() -> dict[str, str]:
    """Networks of the same timm modules that an Architecture can not hold, and why."""
    path = FOLDER / "plain_vits_refused.csv"
    return {cells["name"]: cells["reason"] for _, cells in columns.rows_of(path, _REFUSED)}


def model_named(name: str, image_size: int | None = None) -> Architecture:
    """The preset or timm model called `name`, on another image size where one is given.

    >>> model_named("vit_base_patch16_224.augreg_in21k", image_size=384).tokens
    577
    """
    architecture = _architecture_of(name)
    if image_size is None:
        return architecture
    patch = architecture.patch_size
    if image_size <= 0 or image_size % patch:
        below = max(1, image_size // patch) * patch
        raise Complaint(
            f"{architecture.name} takes image sizes that are multiples of {patch}, "
            f"got {image_size}; nearest: {below}, {below + patch}"
        )
    return architecture.at_image_size(image_size)


def check_precision(name: str) -> Precision:
    """`name` as a precision. Raises Complaint with the list."""
    return _one_of("precision", name, get_args(Precision))


def check_runtime(name: str) -> Runtime:
    """`name` as a runtime. Raises Complaint with the list."""
    return _one_of("runtime", name, get_args(Runtime))


def check_executor(name: str) -> Executor:
    """`name` as an executor. Raises Complaint with the list."""
    return _one_of("executor", name, get_args(Executor))


def energy(country: str) -> EnergyRow:
    """Electricity of a country, by its ISO 3166 letters (JPN) or its English name.

    >>> energy("jpn").currency
    'JPY'
    """
    by_name = {row.country.casefold(): code for code, row in _energy().items()}
    asked = unicodedata.normalize("NFKC", country).strip()
    code = by_name.get(asked.casefold(), asked.upper())
    if code not in _energy():
        known = nearest(asked.casefold(), [each.casefold() for each in _energy()] + [*by_name])
        raise Complaint(f"unknown country {country!r}; {known}; three letters such as JPN are safe")
    return _energy()[code]


@functools.cache
def cloud_prices() -> tuple[CloudPrice, ...]:
    """Cloud instances with price, date and source; historical ones say so in their notes."""
    path = FOLDER / "cloud.csv"
    return tuple(
        _made(CloudPrice, path, line, cells) for line, cells in columns.rows_of(path, _CLOUD)
    )


@functools.cache
def commitment_discounts() -> tuple[CommitmentDiscount, ...]:
    """Discounts for committing to a cloud; averages, to be shown as estimates."""
    path = FOLDER / "cloud_commitment_discounts.csv"
    return tuple(
        _made(CommitmentDiscount, path, line, cells)
        for line, cells in columns.rows_of(path, _DISCOUNTS)
    )


@functools.cache
def published() -> tuple[PublishedRow, ...]:
    """What others measured, on devices and networks of this catalogue, file by file."""
    return tuple(
        _made(PublishedRow, path, line, {**cells, "file": path.name})
        for path in sorted((FOLDER / "published").glob("*.csv"))
        for line, cells in columns.rows_of(path, _PUBLISHED)
    )


class _Alias(Record):
    device: Identifier | None = None
    others: tuple[Identifier, ...] = ()
    why: str = ""


@functools.cache
def _aliases() -> dict[str, _Alias]:
    path = FOLDER / "aliases.toml"
    aliases: dict[str, _Alias] = {}
    for name, block in _toml(path).items():
        # TOML has lists only; strict records take tuples only.
        fields = {key: tuple(v) if isinstance(v, list) else v for key, v in block.items()}
        alias = _made(_Alias, path, name, fields)
        for id in (alias.device, *alias.others):
            if id is not None and id not in devices():
                raise CorruptFile(f"{path}: {name} points to {id}, which is no device")
        aliases[name] = alias
    return aliases


@functools.cache
def _energy() -> dict[str, EnergyRow]:
    path = FOLDER / "energy.csv"
    rows = [_made(EnergyRow, path, line, cells) for line, cells in columns.rows_of(path, _ENERGY)]
    return {row.iso3: row for row in rows}


@functools.cache
def _architectures() -> dict[str, Architecture]:
    """Presets and plain networks by folded name."""
    every = {**plain_vits(), **presets()}
    return {_folded(name): architecture for name, architecture in every.items()}


def _architecture_of(name: str) -> Architecture:
    untagged = _folded(name).removeprefix("timm/").partition(".")[0]
    known = _architectures()
    if untagged in known:
        return known[untagged]
    for each, reason in refused_vits().items():
        if _folded(each) == untagged:
            raise Complaint(f"{each} can not be predicted: {reason}")
    close = nearest(untagged.replace("-", "_"), [*plain_vits()])
    if untagged.startswith("mor"):
        close = nearest(untagged, presets())
    raise Complaint(f"unknown model {name!r}; {close}; presets: {', '.join(presets())}")


def _folded(name: str) -> str:
    plain = unicodedata.normalize("NFKC", name[:LONGEST_NAME]).strip().casefold()
    return re.sub(r"[\s_]+", "-", plain)


Choice = TypeVar("Choice", bound=str)


def _one_of(kind: str, name: str, choices: tuple[Choice, ...]) -> Choice:
    folded = _folded(name).replace("-", "_")
    for choice in choices:
        if choice == folded:
            return choice
    raise Complaint(f"unknown {kind} {name!r}; one of {', '.join(choices)}")


def _made(
    kind: type[RecordType], path: Path, where: str | int, fields: Mapping[str, Any]
) -> RecordType:
    """A record, or CorruptFile with the place in the file and the field that is wrong."""
    try:
        return kind(**fields)
    except ValidationError as error:
        raise CorruptFile(f"{path}:{where}: {first_error(error)}") from error


def _toml(path: Path) -> dict[str, dict[str, Any]]:
    try:
        blocks = tomllib.loads(columns.text_of(path))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise CorruptFile(f"{path}: {error}") from error
    for name, block in blocks.items():
        if not isinstance(block, dict):
            raise CorruptFile(f"{path}: {name}: wanted a table, got {block!r}")
    return blocks


_REFUSED = columns.named(name=columns.text, reason=columns.text)

_PLAIN_VIT = columns.named(
    name=columns.text,
    image_size=columns.whole,
    patch_size=columns.whole,
    channels=columns.whole,
    classes=columns.whole,
    width=columns.whole,
    heads=columns.whole,
    mlp_width=columns.whole,
    mlp=columns.text,
    depth=columns.Column("shared_layers", columns.whole),
    prefix_tokens=columns.whole,
    position_tokens=columns.or_absent(columns.whole, None),
    qkv_bias=columns.yes_or_no,
    layer_scale=columns.yes_or_no,
    qk_norm=columns.yes_or_no,
    inner_norms=columns.yes_or_no,
    pre_norm=columns.yes_or_no,
    norm=columns.text,
    pool=columns.text,
    untouched_parameters=columns.whole,
    params=columns.Column("parameters", columns.whole),
    exact_work=columns.Column("has_exact_work", columns.yes_or_no),
    note=columns.Column("caveat", columns.text),
)
_ONE_BLOCK = {"layers_before": 0, "recursions": 1, "layers_after": 0}

_ENERGY = columns.named(
    iso3=columns.text,
    country=columns.text,
    carbon_gco2_kwh=columns.Column("carbon_g_per_kwh", columns.number),
    carbon_year=columns.whole,
    carbon_source=columns.text,
    elec_price=columns.Column("price_per_kwh", columns.or_unknown(columns.money)),
    elec_price_ccy=columns.Column("currency", columns.text),
    elec_price_year=columns.Column("price_year", columns.text),
    elec_price_note=columns.Column("price_note", columns.text),
    elec_price_source=columns.Column("price_source", columns.text),
    conf=columns.Column("confidence", columns.text),
)

_CLOUD = columns.named(
    provider=columns.text,
    instance=columns.text,
    gpu=columns.text,
    device_id=columns.or_absent(columns.text, None),
    gpu_count=columns.number,
    gpu_mem_gb=columns.Column("gpu_memory_bytes", columns.or_unknown(columns.scaled(2**30))),
    vcpus=columns.or_unknown(columns.whole),
    mem_gb=columns.Column("memory_bytes", columns.or_unknown(columns.scaled(GIGA))),
    region=columns.text,
    ondemand_usd_h=columns.Column("on_demand_usd_per_h", columns.money),
    spot_usd_h=columns.Column("spot_usd_per_h", columns.or_unknown(columns.money)),
    reserved_1y_usd_h=columns.Column("reserved_1y_usd_per_h", columns.or_unknown(columns.money)),
    reserved_3y_usd_h=columns.Column("reserved_3y_usd_per_h", columns.or_unknown(columns.money)),
    as_of=columns.text,
    source=columns.text,
    licence=columns.text,
    conf=columns.Column("confidence", columns.text),
    notes=columns.text,
)

_DISCOUNTS = {
    "provider": columns.Column("provider", columns.text),
    "1y_no_upfront": columns.Column("one_year_no_upfront", columns.or_unknown(columns.number)),
    "1y_all_upfront": columns.Column("one_year_all_upfront", columns.or_unknown(columns.number)),
    "3y_no_upfront": columns.Column("three_years_no_upfront", columns.or_unknown(columns.number)),
    "3y_partial_upfront": columns.Column(
        "three_years_partial_upfront", columns.or_unknown(columns.number)
    ),
    "3y_all_upfront": columns.Column("three_years_all_upfront", columns.or_unknown(columns.number)),
    **columns.named(as_of=columns.text, source=columns.text, note=columns.text),
}

_PUBLISHED = columns.named(
    model=columns.text,
    as_model=columns.or_absent(columns.text, None),
    device_id=columns.text,
    precision_id=columns.Column("precision", columns.text),
    runtime_id=columns.Column("runtime", columns.text),
    batch_size=columns.Column("batch", columns.or_absent(columns.whole, None)),
    img_size=columns.Column("image_size", columns.or_absent(columns.whole, None)),
    seq_len=columns.or_absent(columns.whole, None),
    throughput_img_per_s=columns.number,
    latency_ms=columns.Column("latency_s", columns.or_absent(columns.scaled(MILLI), None)),
    torch_version=columns.text,
    layout=columns.text,
    note=columns.text,
    source_repo=columns.text,
    source_path=columns.text,
    source_commit=columns.text,
    licence=columns.text,
)
