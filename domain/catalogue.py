"""What the catalogue says: devices, networks, energy, cloud prices, and what others published.

The files lie in the folder beside this module; they are read once, when first asked for. Scales
that are not SI (GB, ms) end here.
"""

import csv
import functools
import io
import re
import tomllib
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from pydantic import ValidationError

from domain.architecture import Architecture
from domain.complaint import Complaint, CorruptFile, first_error, nearest
from domain.device import DeviceClass, DeviceSpec
from domain.record import (
    Executor,
    Identifier,
    NonNegative,
    Positive,
    PositiveCount,
    Precision,
    Record,
    Runtime,
    Sentence,
    Unknown,
)
from domain.scenario import Money
from domain.units import GIGA, MILLI

FOLDER = Path(__file__).with_suffix("")

LARGEST_FILE_BYTES = 4 * 2**20
LONGEST_NAME = 200
LIST_DEVICES = "`python -m costmodel.predict --list-devices`"

Cell = Callable[[str], object]
Confidence = Literal["", "A", "B", "C"]
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


class EnergyRow(Record):
    """Carbon and price of a country's electricity. The price is before tax, of industry."""

    iso3: str
    country: Sentence
    carbon_g_per_kwh: NonNegative
    carbon_year: PositiveCount
    carbon_source: Sentence
    price_per_kwh: Money | Unknown
    currency: str
    price_year: str
    price_note: str
    price_source: str
    confidence: Confidence


class CloudPrice(Record):
    """What one cloud instance cost per hour on a day. `device_id` where the catalogue has its GPU.

    `gpu_count` is below one for a slice of a GPU.
    """

    provider: Identifier
    instance: Sentence
    gpu: Sentence
    device_id: Identifier | None
    gpu_count: NonNegative
    gpu_memory_bytes: Positive | Unknown
    vcpus: PositiveCount | Unknown
    memory_bytes: Positive | Unknown
    region: str
    on_demand_usd_per_h: Money
    spot_usd_per_h: Money | Unknown
    reserved_1y_usd_per_h: Money | Unknown
    reserved_3y_usd_per_h: Money | Unknown
    as_of: Sentence
    source: Sentence
    licence: str
    confidence: Confidence
    notes: str


class CommitmentDiscount(Record):
    """Share off the on-demand price for committing: averages over CPU families, so estimates."""

    provider: Sentence
    one_year_no_upfront: NonNegative | Unknown
    one_year_all_upfront: NonNegative | Unknown
    three_years_no_upfront: NonNegative | Unknown
    three_years_partial_upfront: NonNegative | Unknown
    three_years_all_upfront: NonNegative | Unknown
    as_of: Sentence
    source: Sentence
    note: str


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
    for line, cells in _csv(path, _PLAIN_VIT):
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
    return {cells["name"]: cells["reason"] for _, cells in _csv(path, _REFUSED)}


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
    return tuple(_made(CloudPrice, path, line, cells) for line, cells in _csv(path, _CLOUD))


@functools.cache
def commitment_discounts() -> tuple[CommitmentDiscount, ...]:
    """Discounts for committing to a cloud; averages, to be shown as estimates."""
    path = FOLDER / "cloud_commitment_discounts.csv"
    return tuple(
        _made(CommitmentDiscount, path, line, cells) for line, cells in _csv(path, _DISCOUNTS)
    )


@functools.cache
def published() -> tuple[PublishedRow, ...]:
    """What others measured, on devices and networks of this catalogue, file by file."""
    return tuple(
        _made(PublishedRow, path, line, {**cells, "file": path.name})
        for path in sorted((FOLDER / "published").glob("*.csv"))
        for line, cells in _csv(path, _PUBLISHED)
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
    rows = [_made(EnergyRow, path, line, cells) for line, cells in _csv(path, _ENERGY)]
    return {row.iso3: row for row in rows}


def _architecture_of(name: str) -> Architecture:
    untagged = _folded(name).partition(".")[0]
    for known in (presets(), plain_vits()):
        for each, architecture in known.items():
            if _folded(each) == untagged:
                return architecture
    for each, reason in refused_vits().items():
        if _folded(each) == untagged:
            raise Complaint(f"{each} can not be predicted: {reason}")
    close = nearest(untagged.replace("-", "_"), [*plain_vits(), *refused_vits()])
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


def _text_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE_BYTES + 1)
        if len(content) > LARGEST_FILE_BYTES:
            raise CorruptFile(f"{path} is larger than {LARGEST_FILE_BYTES} bytes")
        return content.decode()
    except OSError as error:
        raise CorruptFile(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise CorruptFile(f"{path} is no UTF-8 text: byte {error.start}") from error


def _toml(path: Path) -> dict[str, dict[str, Any]]:
    try:
        blocks = tomllib.loads(_text_of(path))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise CorruptFile(f"{path}: {error}") from error
    for name, block in blocks.items():
        if not isinstance(block, dict):
            raise CorruptFile(f"{path}: {name}: wanted a table, got {block!r}")
    return blocks


@dataclass(frozen=True)
class _Column:
    """The field that a column fills, and how its cells are read; `read` raises ValueError."""

    field: str
    read: Cell


def _csv(path: Path, columns: Mapping[str, _Column]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number and fields of each row. Raises CorruptFile with file, line and column."""
    reader = csv.reader(io.StringIO(_text_of(path), newline=""), strict=True)
    try:
        header = next(reader, [])
        if header != [*columns]:
            raise CorruptFile(f"{path}:1: wanted the columns {', '.join(columns)}, got {header}")
        for row in reader:
            line = reader.line_num
            if len(row) != len(columns):
                raise CorruptFile(f"{path}:{line}: wanted {len(columns)} cells, got {len(row)}")
            fields: dict[str, Any] = {}
            for (name, column), cell in zip(columns.items(), row, strict=True):
                try:
                    fields[column.field] = column.read(cell)
                except ValueError as error:
                    raise CorruptFile(f"{path}:{line}:{name}: {error}") from error
            yield line, fields
    except csv.Error as error:
        raise CorruptFile(f"{path}:{reader.line_num}: {error}") from error


_WHOLE = re.compile(r"[0-9]{1,18}")
_NUMBER = re.compile(r"-?[0-9]{1,18}(\.[0-9]{1,18})?")
_MONEY = re.compile(r"[0-9]{1,12}(\.[0-9]{1,12})?")


def _text(cell: str) -> str:
    if not cell.isprintable() or cell != cell.strip() or len(cell) > 1000:
        raise ValueError(f"wanted printable text without spaces around it, got {cell[:60]!r}")
    return cell


def _matching(pattern: re.Pattern[str], wanted: str, cell: str) -> str:
    if not pattern.fullmatch(cell):
        raise ValueError(f"wanted {wanted}, got {cell[:60]!r}")
    return cell


def _whole(cell: str) -> int:
    return int(_matching(_WHOLE, "a whole number", cell))


def _number(cell: str) -> float:
    return float(_matching(_NUMBER, "a decimal number", cell))


def _money(cell: str) -> Decimal:
    return Decimal(_matching(_MONEY, "an amount of zero or more", cell))


def _yes_or_no(cell: str) -> bool:
    if cell not in ("yes", "no"):
        raise ValueError(f"wanted yes or no, got {cell[:60]!r}")
    return cell == "yes"


def _scaled(unit: float) -> Cell:
    return lambda cell: _number(cell) * unit


def _or(read: Cell, absent: object) -> Cell:
    return lambda cell: read(cell) if cell else absent


def _or_unknown(read: Cell) -> Cell:
    return _or(read, Unknown(reason="not in the source"))


def _columns(**columns: _Column | Cell) -> dict[str, _Column]:
    return {
        name: column if isinstance(column, _Column) else _Column(name, column)
        for name, column in columns.items()
    }


_REFUSED = _columns(name=_text, reason=_text)

_PLAIN_VIT = _columns(
    name=_text,
    image_size=_whole,
    patch_size=_whole,
    channels=_whole,
    classes=_whole,
    width=_whole,
    heads=_whole,
    mlp_width=_whole,
    mlp=_text,
    depth=_Column("shared_layers", _whole),
    prefix_tokens=_whole,
    position_tokens=_or(_whole, None),
    qkv_bias=_yes_or_no,
    layer_scale=_yes_or_no,
    qk_norm=_yes_or_no,
    pre_norm=_yes_or_no,
    norm=_text,
    pool=_text,
    untouched_parameters=_whole,
    params=_Column("parameters", _whole),
    exact_work=_Column("has_exact_work", _yes_or_no),
    note=_Column("caveat", _text),
)
_ONE_BLOCK = {"layers_before": 0, "recursions": 1, "layers_after": 0}

_ENERGY = _columns(
    iso3=_text,
    country=_text,
    carbon_gco2_kwh=_Column("carbon_g_per_kwh", _number),
    carbon_year=_whole,
    carbon_source=_text,
    elec_price=_Column("price_per_kwh", _or_unknown(_money)),
    elec_price_ccy=_Column("currency", _text),
    elec_price_year=_Column("price_year", _text),
    elec_price_note=_Column("price_note", _text),
    elec_price_source=_Column("price_source", _text),
    conf=_Column("confidence", _text),
)

_CLOUD = _columns(
    provider=_text,
    instance=_text,
    gpu=_text,
    device_id=_or(_text, None),
    gpu_count=_number,
    gpu_mem_gb=_Column("gpu_memory_bytes", _or_unknown(_scaled(2**30))),
    vcpus=_or_unknown(_whole),
    mem_gb=_Column("memory_bytes", _or_unknown(_scaled(GIGA))),
    region=_text,
    ondemand_usd_h=_Column("on_demand_usd_per_h", _money),
    spot_usd_h=_Column("spot_usd_per_h", _or_unknown(_money)),
    reserved_1y_usd_h=_Column("reserved_1y_usd_per_h", _or_unknown(_money)),
    reserved_3y_usd_h=_Column("reserved_3y_usd_per_h", _or_unknown(_money)),
    as_of=_text,
    source=_text,
    licence=_text,
    conf=_Column("confidence", _text),
    notes=_text,
)

_DISCOUNTS = {
    "provider": _Column("provider", _text),
    "1y_no_upfront": _Column("one_year_no_upfront", _or_unknown(_number)),
    "1y_all_upfront": _Column("one_year_all_upfront", _or_unknown(_number)),
    "3y_no_upfront": _Column("three_years_no_upfront", _or_unknown(_number)),
    "3y_partial_upfront": _Column("three_years_partial_upfront", _or_unknown(_number)),
    "3y_all_upfront": _Column("three_years_all_upfront", _or_unknown(_number)),
    **_columns(as_of=_text, source=_text, note=_text),
}

_PUBLISHED = _columns(
    model=_text,
    as_model=_or(_text, None),
    device_id=_text,
    precision_id=_Column("precision", _text),
    runtime_id=_Column("runtime", _text),
    batch_size=_Column("batch", _or(_whole, None)),
    img_size=_Column("image_size", _or(_whole, None)),
    seq_len=_or(_whole, None),
    throughput_img_per_s=_number,
    latency_ms=_Column("latency_s", _or(_scaled(MILLI), None)),
    torch_version=_text,
    layout=_text,
    note=_text,
    source_repo=_text,
    source_path=_text,
    source_commit=_text,
    licence=_text,
)
