"""What a sweep left in its folder: whose it is, which parts are there, and what they come to."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from domain.complaint import Complaint, CorruptFile
from domain.scenario import Scenario
from domain.store import write_whole
from scenarios.partition import SUMMARY, Axes, Cell, Part, Summary, parts_of, summary_of

MANIFEST = "sweep.json"


def path_of(folder: Path, part: Part) -> Path:
    """The file of a part."""
    return folder / f"{part.name}.parquet"


def read_summaries(folder: Path, cell: Cell, axes: Axes) -> list[Summary]:
    """What a cell's files come to. Raises CorruptFile where one is not that cell's.

    A cell of several files is reckoned from its rows: one column of one price and site at a time.
    """
    parts = parts_of(cell, axes)
    said = [_summaries(folder, cell, part) for part in parts]
    if len(parts) == 1:
        return said[0]
    found = []
    for group, each in enumerate(said[0]):
        holds = sum(
            of[group].holds * (part.stop - part.start) for of, part in zip(said, parts, strict=True)
        )
        costs = np.concatenate([_costs(path_of(folder, part), group) for part in parts])
        found.append(summary_of(cell.name, each.price, each.site, costs, holds / axes.draws))
    return found


def _summaries(folder: Path, cell: Cell, part: Part) -> list[Summary]:
    path = path_of(folder, part)
    try:
        metadata = pq.read_schema(path).metadata or {}
        said = json.loads(metadata[SUMMARY])
        summaries = [Summary(**each) for each in said["summaries"]]
        whose = (said["cell"], said["part"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CorruptFile(f"{path} is no part of a sweep: {error}; delete it") from error
    if whose != (json.loads(json.dumps(asdict(cell))), asdict(part)):
        raise CorruptFile(f"{path} is of another sweep; delete it, or name another --out")
    return summaries


def _costs(path: Path, group: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            column = file.read_row_group(group, columns=["cost"]).column("cost")
    except (OSError, ValueError, pa.ArrowException) as error:
        raise CorruptFile(f"{path} is damaged: {error}; delete it") from error
    return np.asarray(column.to_numpy(), dtype=np.float32)


def claim(folder: Path, spec: str, scenario: Scenario, cells: int) -> None:
    """The folder is of this sweep alone: rows of two would be taken for those of one."""
    manifest = folder / MANIFEST
    said = {"format": 2, "spec": spec, "scenario": scenario.name, "cells": cells}
    if not manifest.exists():
        if folder.is_dir() and any(folder.glob("*.parquet")):
            raise Complaint(f"{folder} has rows but no {MANIFEST}; name another --out")
        write_whole(manifest, (json.dumps(said, indent=1) + "\n").encode())
        return
    try:
        before = json.loads(manifest.read_bytes()[:10_000])
        is_same = isinstance(before, dict) and before.get("spec") == spec
    except ValueError as error:
        raise CorruptFile(f"{manifest} is no JSON: {error}") from error
    if not is_same:
        raise Complaint(
            f"{folder} holds another sweep (other devices, axes, seed or fits); name another --out"
        )


def missing_of(folder: Path, cells: Sequence[Cell], axes: Axes) -> list[tuple[Cell, Part]]:
    """Every part that has no file yet: the same draws of all cells, then the next ones."""
    done = {path.stem for path in folder.glob("*.parquet")}
    tasks = [
        (cell, part) for cell in cells for part in parts_of(cell, axes) if part.name not in done
    ]
    # Cells share the world of their draws; it is made once where they follow each other.
    return sorted(tasks, key=lambda task: task[1].start)
