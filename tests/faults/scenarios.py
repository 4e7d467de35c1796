"""Hostile scenario files and command lines: an answer, or one sentence and the right exit code.

Files are those of the library with lines changed, dropped, doubled, cut, or set to extremes; what
is still a scenario is sized. Lines are options of every command of `scenarios` with hostile values.
"""

import os
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from unittest import mock

from domain.complaint import Complaint
from domain.store import reference_root, stored_fits
from scenarios import accept, compare, size, sweep
from scenarios.forecasting import devices_of, forecasts_of
from scenarios.reading import LIBRARY, read_asked
from scenarios.sizing import plan_of
from tests.faults.running import seeded
from tests.faults.tally import Fault, Tally
from tests.scenarios.commands import run
from tests.scenarios.test_size import SMALL

VALUES = (
    "nan", "inf", "-inf", "1e308", "1e-308", "-1", "0", "0.0", "1e15", "true", '""', "[]", "{}",
    "1979-05-27", "'x'", "9" * 400, "0x7fffffffffffffff", '"\\u202e"', "[[[[]]]]", '"=cmd()"',
    '"[/red]"', '"../../etc/passwd"', "1_000", "0.999999999", "-0.5", "100", "366.0", '"JPY"',
    '"trace"', '"offline"', '"takt"', '"macrs"', '"\x00"', '"ｌ４"', '"日本"', "'''\n'''",
)  # fmt: skip
# Numbers that a field may well take, far from what is usual.
NUMBERS = (
    "0", "1", "3", "1000000", "1000000000", "0.0", "1e-9", "1e-3", "0.5", "0.99", "1.0", "24.0",
    "1e6", "1e9", "1e15", "-0.99",
)  # fmt: skip
WORDS = (
    "", "nan", "inf", "-1", "0", "1e99", "1", "2,3", "a,b", "../x", "/dev/null", "/", "=", "l4=1",
    "orin-nano-super=1", "orin-nano-super=-1", "ja", "en", "xml", "csv", "json", "md", "\x1b[31m",
    "=cmd()", "[/red]", "日本", "9" * 400, "tcp://127.0.0.1:1", "0.5", "fp16", "packed", "100",
)  # fmt: skip
# Every option that writes or reads elsewhere is left out: what it is given is not ours to break.
OPTIONS: dict[str, tuple[Callable[[], None], tuple[str, ...]]] = {
    "size": (size.main, ("--price-usd", "--format", "--advice", "--wat")),
    "compare": (compare.main, ("--price-usd", "--format", "--draws", "--seed", "--wat")),
    "sweep": (
        sweep.main,
        (
            "--precisions", "--executors", "--routings", "--prices", "--energy-prices", "--draws",
            "--seed", "--workers", "--format", "--wat",
        ),
    ),
    "accept": (accept.main, ("--device", "--format", "--checkpoint", "--journal", "--wat")),
}  # fmt: skip
REFUSALS = (2, 3, 4, 5, 6, 7, 8)
LONGEST_SENTENCE, SIZED_EVERY = 1500, 10
NOT_A_NUMBER = re.compile(r"\b(nan|-?inf)\b")


def scenarios(tries: int, seed: int) -> Iterator[Fault]:
    """Seven of ten tries are of files, the others of command lines."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "reference").symlink_to(reference_root())
        with mock.patch.dict(os.environ, {"MORSIZER_RESULTS": folder}):
            yield _files(root, max(1, tries * 7 // 10), seeded(seed))
            yield _lines(root, max(1, tries * 3 // 10), seeded(seed + 1))


def _files(root: Path, tries: int, random: Random) -> Fault:
    tally, read, sized = Tally("hostile scenario file"), 0, 0
    texts = [SMALL, *(path.read_text() for path in sorted(LIBRARY.glob("*.toml")))]
    path, fits = root / "hostile.toml", stored_fits()
    for _ in range(tries):
        content = damaged(random.choice(texts), random)
        path.write_text(content, encoding="utf-8", errors="replace")
        problem = ""
        try:
            asked = read_asked(path)
            read += 1
            if read % SIZED_EVERY == 0:
                devices, _ = devices_of(asked.scenario, fits)
                forecasts = forecasts_of(asked.scenario, devices, fits)
                plan = plan_of(
                    asked.scenario, forecasts, devices, "fuzz", asked.recorded_s, is_replayed=False
                )
                sized += 1
                problem = _plan_problem(plan.model_dump_json())
        except Complaint as complaint:
            problem = "" if 0 < len(str(complaint)) < LONGEST_SENTENCE else "no sentence"
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"[:200]
        tally.count(problem)
    return tally.result(
        f"{read} were still scenarios, every {SIZED_EVERY}th of them sized: {sized}"
    )


def _plan_problem(said: str) -> str:
    found = NOT_A_NUMBER.search(said.lower().replace("infinite", ""))
    return f"the plan says {found[0]}" if found else ""


def damaged(text: str, random: Random) -> str:
    """One to three changes of a file's lines."""
    lines = text.strip().splitlines()
    for _ in range(random.randint(1, 3)):
        place = random.randrange(len(lines))
        key, equals, _ = lines[place].partition(" = ")
        kind = random.choice(["number"] * 6 + ["value", "drop", "twice", "key", "noise", "cut"])
        if kind in ("number", "value") and equals:
            lines[place] = f"{key} = {random.choice(NUMBERS if kind == 'number' else VALUES)}"
        elif kind == "drop":
            lines[place] = ""
        elif kind == "twice":
            lines.insert(place, lines[place])
        elif kind == "key":
            lines[place] = f"{key}x{equals}1"
        elif kind == "noise":
            lines[place] += "".join(chr(random.randrange(0x2FFF)) for _ in range(5))
        elif kind == "cut":
            lines = lines[: place + 1]
    return "\n".join(lines)


def _lines(root: Path, tries: int, random: Random) -> Fault:
    tally, answered = Tally("hostile command line"), 0
    file = root / "small.toml"
    file.write_text(SMALL)
    run(size.main, file)
    plan = root / "plans" / "small.json"
    for number in range(tries):
        name = random.choice(list(OPTIONS))
        main, options = OPTIONS[name]
        target = plan if name == "accept" else file
        arguments: list[str] = [str(random.choice([target] * 8 + [root, root / "none", Path()]))]
        for option in random.sample(options, random.randint(1, min(3, len(options)))):
            arguments += [option, random.choice(WORDS)]
        arguments += _bounded(name, arguments, root / f"out-{number}")
        problem, code = _heard(main, arguments)
        answered += code == 0
        tally.count(problem)
    return tally.result(f"{answered} were answered")


def _bounded(name: str, given: Sequence[str], out: Path) -> list[str]:
    """What keeps a try small where its options do not say otherwise."""
    more = {
        "size": [],
        "compare": ["--only-named", *(["--draws", "100"] if "--draws" not in given else [])],
        "sweep": ["--out", str(out), *(["--draws", "50"] if "--draws" not in given else [])],
        "accept": ["--out", str(out)],
    }
    return more[name]


def _heard(main: Callable[[], None], arguments: Sequence[str]) -> tuple[str, int]:
    try:
        done = run(main, *arguments)
    except BaseException as error:
        return f"{type(error).__name__}: {error}; {' '.join(arguments)[-200:]}"[:400], 1
    said = done.stderr.strip().splitlines()
    if done.returncode == 0:
        found = NOT_A_NUMBER.search(done.stdout.lower())
        return (f"says {found[0]}" if found else ""), 0
    if done.returncode not in REFUSALS:
        return f"exit {done.returncode}: {' '.join(arguments)[-200:]}", done.returncode
    if not said or "Traceback" in done.stderr or len(said[-1]) > LONGEST_SENTENCE:
        return f"no sentence: {' '.join(arguments)[-200:]}", done.returncode
    return "", done.returncode
