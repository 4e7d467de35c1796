"""Damaged files (R6): each is fed to the commands that read it, which refuse it in one sentence.

Silently accepted is a file whose meaning changed, where the command neither refuses, nor says on
standard error what it did not read, nor gives the answer that it gives for the whole file. A file
that people write by hand, changed into another valid one, is an edit and no damage.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from domain.complaint import OK, UNSTABLE
from tests.faults import artefacts as of
from tests.faults.artefacts import Heard, Reader, peak_bytes
from tests.faults.damages import (
    ANY,
    LINES,
    SPARSE,
    SPARSE_BYTES,
    Damage,
    inside_archive,
    journal_damages,
    json_damages,
)
from tests.faults.running import seeded
from tests.faults.tally import Fault, Tally
from tests.profiler.conftest import ROOT

REFUSALS = {2, 4, 5, 6, 7, 8}
LONGEST_S = 30.0
# A sentence that something was not read, unlike one about what the numbers say.
SAID = re.compile(
    r"damaged|altered|not read|measured, \d+ left|is no |no readable|larger than|cannot read|lacks|"
    r"does not match|complaint"
)
# A dear reader sees every so many of the files.
DEAR_EVERY = 12
COMPARED_EVERY = 50


@dataclass(frozen=True, kw_only=True)
class Artefact:
    """A file, what may happen to it, and who reads it; `dear` readers see only some."""

    path: str
    damages: tuple[Damage, ...]
    readers: tuple[Reader, ...]
    dear: tuple[Reader, ...] = ()
    by_hand: bool = False


_SEALED = (*ANY, *json_damages(is_sealed=True), *SPARSE)
_BINARY = (*ANY, *SPARSE)
_JOURNAL = (*ANY, *journal_damages(), *SPARSE)
_MINE = "measurements/mine"

# A file that has many readers stands for more of the tries.
ARTEFACTS: tuple[tuple[int, Artefact], ...] = (
    (5, Artefact(path=f"{_MINE}/journal.jsonl", damages=_JOURNAL,
                 readers=(of.RESUME, of.EXPORT, of.SHOW, of.COMPARE, of._parts),
                 dear=(of.FIT, of.VALIDATE, of.REPORT))),
    (2, Artefact(path="measurements/packed/journal.jsonl.xz",
                 damages=(*_BINARY, *map(inside_archive, (*ANY, *journal_damages()))),
                 readers=(of.EXPORT_PACKED,))),
    (3, Artefact(path=f"{_MINE}/session.json", damages=_SEALED, readers=(of.RESUME,))),
    (2, Artefact(path="plan.json", damages=_SEALED, readers=(of.PLAN,))),
    (3, Artefact(path="fits/*.json", damages=_SEALED, readers=(of.PREDICT, of._parts),
                 dear=(of.SIZE,))),
    (1, Artefact(path=f"{_MINE}/decisions.json", damages=_SEALED, readers=(of._parts,),
                 dear=(of.REPORT,))),
    (1, Artefact(path="predictions/catalogue.json", damages=_SEALED, readers=(of._parts,),
                 dear=(of.REPORT,))),
    (1, Artefact(path="predictions/validation_pairs.json", damages=_SEALED,
                 readers=(of._parts,))),
    (1, Artefact(path="plans/*.json", damages=_SEALED, readers=(of._parts,))),
    (2, Artefact(path=f"{_MINE}/routing.parquet", damages=_BINARY,
                 readers=(of.PREDICT_TRACE, of._parts))),
    (1, Artefact(path=f"{_MINE}/measurements.parquet", damages=_BINARY, readers=(of.VERIFY,))),
    (1, Artefact(path=f"{_MINE}/depths.parquet", damages=_BINARY, readers=(of.VERIFY,))),
    (1, Artefact(path=f"{_MINE}/manifest.json",
                 damages=(*ANY, *json_damages(is_sealed=False)[2:], *SPARSE),
                 readers=(of.VERIFY,))),
    (1, Artefact(path="table.csv", damages=(*ANY, *LINES, *SPARSE), readers=(of.PREDICT_TABLE,),
                 by_hand=True)),
    (1, Artefact(path="line.toml", damages=(*ANY, *LINES, *SPARSE), readers=(of.SIZE,),
                 by_hand=True)),
    (1, Artefact(path="toy.json", damages=_SEALED, readers=(of._checkpoint,))),
    (1, Artefact(path="toy.safetensors", damages=_BINARY, readers=(of._checkpoint,))),
)  # fmt: skip


def mutations(tries: int, seed: int) -> Iterator[Fault]:
    """So many damaged files over all kinds, and a sample of them through real processes."""
    with tempfile.TemporaryDirectory(prefix="faults-") as name:
        whole, world = Path(name) / "whole", Path(name) / "world"
        with mock.patch.dict(os.environ, {"MORSIZER_RESULTS": str(whole)}):
            of.built(whole)
        shutil.copytree(whole, world)
        with mock.patch.dict(os.environ, {"MORSIZER_RESULTS": str(world)}):
            yield from _tried(tries, seed, whole, world)


def _tried(tries: int, seed: int, whole: Path, world: Path) -> Iterator[Fault]:
    each = max(1, round(tries / sum(share for share, _ in ARTEFACTS)))
    answers: dict[Reader, Heard] = {}
    tallies = []
    for share, artefact in ARTEFACTS:
        path = next(world.glob(artefact.path))
        tally = Tally(f"damaged {path.name if '*' not in artefact.path else artefact.path}")
        tallies.append(tally)
        content = path.read_bytes()
        dear = artefact.dear if each * share >= DEAR_EVERY else ()
        for reader in (*artefact.readers, *dear):
            if reader not in answers:
                answers[reader] = reader(world)
                assert answers[reader].code == OK, answers[reader]
                _restored(whole, world)
        kinds = seeded(seed, artefact.path).sample(artefact.damages, len(artefact.damages))
        for number in range(each * share):
            damage = kinds[number % len(kinds)]
            random = seeded(seed, artefact.path, number)
            changed = damage.change(content, random)
            if changed == content and not damage.is_sparse:
                changed = damage.change(content, seeded(seed, artefact.path, number, "again"))
            path.write_bytes(changed)
            if damage.is_sparse:
                os.truncate(path, SPARSE_BYTES)
            readers = artefact.readers + (dear if number % DEAR_EVERY == DEAR_EVERY - 1 else ())
            is_edit = damage.is_edit or artefact.by_hand
            problems = [
                problem_of(reader(world), answers[reader], is_edit=is_edit) for reader in readers
            ]
            silent = any("silently" in problem for problem in problems)
            tally.count(
                *(f"{damage.name} (number {number}): {each}" for each in problems if each),
                lost=int(silent),
            )
            _restored(whole, world)
    for tally in tallies:
        yield tally.result()
    yield _compared(max(1, tries // COMPARED_EVERY), seed, whole, world)


def problem_of(heard: Heard, intact: Heard, *, is_edit: bool) -> str:
    """What is wrong with how a command took a damaged file; empty where nothing is."""
    if heard.crash or heard.code == 1 or "Traceback" in heard.err:
        return f"crashed: {heard.crash or heard.err[-200:]}"
    if heard.seconds > LONGEST_S:
        return f"it took {heard.seconds:.0f} s"
    if heard.code not in (OK, UNSTABLE):  # unstable: the answer says why
        lines = [line for line in heard.err.splitlines() if line.startswith("error: ")]
        if heard.code not in REFUSALS or len(lines) != 1:
            return f"exit status {heard.code} with {len(lines)} sentences"
        return ""
    new = set(heard.err.splitlines()) - set(intact.err.splitlines())
    says_so = any(SAID.search(line) for line in new)
    refused = heard.out.count("refused") > intact.out.count("refused")
    if heard.out == intact.out or says_so or refused or is_edit:
        return ""
    return "silently accepted"


def _restored(whole: Path, world: Path) -> None:
    shutil.rmtree(world)
    shutil.copytree(whole, world)


# Which module reads a file, for processes of their own.
_COMMANDS: tuple[tuple[str, Sequence[str]], ...] = (
    (f"{_MINE}/journal.jsonl", ("costmodel.fit", "--journal", of.MINE)),
    (f"{_MINE}/journal.jsonl", ("profiler", "export", of.MINE)),
    (f"{_MINE}/session.json", ("profiler", "resume", of.MINE)),
    (f"{_MINE}/manifest.json", ("profiler", "export", of.MINE, "--verify")),
    ("plan.json", ("profiler", "plan", "--plan", "{}/plan.json")),
    ("predictions/catalogue.json", ("reports", "--session", of.MINE, "--output", "{}/r.html")),
)


def _compared(tries: int, seed: int, whole: Path, world: Path) -> Fault:
    """The same through processes: an exit status of the table, one sentence, no traceback."""
    tally = Tally("damaged files through processes")
    kinds = (*ANY, *json_damages(is_sealed=True))
    for number in range(tries):
        path, (module, *arguments) = _COMMANDS[number % len(_COMMANDS)]
        damage = seeded(seed, "process", number).choice(ANY if path.endswith("l") else kinds)
        target = world / path
        content = target.read_bytes()
        target.write_bytes(damage.change(content, seeded(seed, "content", number)))
        done = subprocess.run(
            [sys.executable, "-m", module, *(each.replace("{}", str(world)) for each in arguments)],
            cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
            timeout=120, check=False,
        )  # fmt: skip
        sentences = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        tally.count(
            "a traceback" if "Traceback" in done.stderr else "",
            f"exit status {done.returncode}"
            if done.returncode not in {OK, UNSTABLE, *REFUSALS}
            else "",
            "no sentence" if done.returncode != OK and len(sentences) != 1 else "",
        )
        _restored(whole, world)
    return tally.result(f"peak of the campaign's memory {peak_bytes() / 1e6:.0f} MB")
