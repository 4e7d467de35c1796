"""A small world of results: every file that a public command reads, and the commands that read it."""

import hashlib
import importlib
import io
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from unittest import mock

from domain.measurement import Measurement
from domain.shell import run_shell, say
from domain.store import COMPACT_JOURNAL, Journal, load, read_journal, reference_journal, save
from profiler.messages import Source
from profiler.session import JOURNAL, SESSION, Session
from tests.profiler.conftest import ROOT
from tests.profiler.networks import session

REFERENCE = ROOT / "results" / "reference"
# Taken now: later the results lie elsewhere.
SWEEP = reference_journal().parent
POINTS, RUNS = 9, 3
CSV = """model,device_id,precision_id,runtime_id,batch_size,img_size
morvit-small,l4,fp16,engine,8,224
morvit-small,cpu,fp32,eager,1,224
vit_small_patch16_224,t4,fp16,engine,32,224
"""


@dataclass(frozen=True, kw_only=True)
class Heard:
    """How a command ended: exit status, what it wrote, and the exception that nobody caught."""

    code: int
    out: str
    err: str
    crash: str
    seconds: float


Reader = Callable[[Path], Heard]


class WouldMeasure(Exception):
    """A worker would be started here: the command has read all that it reads."""


def ran(action: Callable[[], object]) -> Heard:
    """What an action comes to under the shell that every command has."""
    began_s = time.monotonic()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        code, crash = 0, ""
        streams = [
            io.TextIOWrapper(file, encoding="utf-8", write_through=True) for file in (out, err)
        ]
        with mock.patch.multiple(sys, stdout=streams[0], stderr=streams[1]):
            try:
                run_shell(action)
            except SystemExit as ended:
                code = ended.code if isinstance(ended.code, int) else int(bool(ended.code))
            except WouldMeasure:
                pass
            except Exception as error:
                code, crash = 1, f"{type(error).__name__}: {error}"[:200]
        said = []
        for stream, file in zip(streams, (out, err), strict=True):
            stream.detach()
            file.seek(0)
            said.append(file.read().decode(errors="replace"))
    return Heard(
        code=code, out=said[0], err=said[1], crash=crash, seconds=time.monotonic() - began_s
    )


def command(module: str, *arguments: str, also: str = "") -> Reader:
    """A command as `python -m` runs it; `{}` in an argument is the world, `also` is output too."""

    def reader(world: Path) -> Heard:
        argv = [module, *(argument.replace("{}", str(world)) for argument in arguments)]
        app = importlib.import_module(module).app
        with mock.patch.object(sys, "argv", argv), _nothing_measured():
            heard = ran(lambda: app(argv[1:], standalone_mode=True))
        more = [_digest(path) for path in sorted(world.glob(also))] if also else []
        out = heard.out.replace(str(world), "") + " ".join(more)
        return Heard(**{**vars(heard), "out": out, "err": heard.err.replace(str(world), "")})

    return reader


@contextmanager
def _nothing_measured() -> Iterator[None]:
    def worker(*_: object, **__: object) -> None:
        raise WouldMeasure

    with (
        mock.patch("profiler.starting.prepared_worker", worker),
        mock.patch("profiler.starting.store_beside", return_value=None),
    ):
        yield


def _digest(path: Path) -> str:
    return f"{path.name}:{hashlib.sha256(path.read_bytes()).hexdigest()[:16]}"


def _parts(world: Path) -> Heard:
    """The report without drawing it: its parts are the answer, its complaints are said."""
    from reports.contents import Absent
    from reports.gather import contents_of

    def action() -> None:
        contents = contents_of(world / "measurements/mine", made_at="now")
        for part in contents.parts.values():
            if isinstance(part, Absent) and part.complaint:
                say(f"complaint: {part.complaint}")
        sys.stdout.write(repr(contents))

    return ran(action)


def _checkpoint(world: Path) -> Heard:
    """What `run --checkpoint` checks before it begins."""
    from profiler.inputs import checked_inputs
    from profiler.source import network_of

    def action() -> None:
        network_of.cache_clear()
        toy = session("a").plan
        source = Source(checkpoint=str(world / "toy.safetensors"))
        sys.stdout.write(checked_inputs(toy, source)[0] + repr(network_of(source)[1]))

    return ran(action)


MINE = "{}/measurements/mine"
PROFILER = "profiler.__main__"
RESUME = command(PROFILER, "resume", MINE)
EXPORT = command(PROFILER, "export", MINE, also="measurements/mine/*.parquet")
EXPORT_PACKED = command(
    PROFILER, "export", "{}/measurements/packed", also="measurements/packed/*.parquet"
)
VERIFY = command(PROFILER, "export", MINE, "--verify")
SHOW = command(PROFILER, "show", MINE, "--format", "json")
COMPARE = command(PROFILER, "compare", "{}/measurements/packed", MINE, "--format", "json")
PLAN = command(PROFILER, "plan", "--plan", "{}/plan.json", "--format", "json")
FIT = command("costmodel.fit", "--journal", MINE, "--format", "json")
VALIDATE = command("costmodel.validate", "--journal", MINE, "--own", "--format", "json")
PREDICT = command("costmodel.predict", "--device", "cpu", "--format", "json")
PREDICT_TRACE = command(
    "costmodel.predict", "--device", "l4", "--model", "morvit-fmnist", "--format", "json",
    "--routing", f"{MINE}/routing.parquet",
)  # fmt: skip
PREDICT_TABLE = command("costmodel.predict", "--from-csv", "{}/table.csv")
SIZE = command("scenarios.size", "{}/line.toml", "--format", "json")
REPORT = command("reports.__main__", "--session", MINE, "--output", "{}/r.html")


def built(world: Path) -> None:
    """Write the world: a slice of the reference, and what the commands make of it."""
    from costmodel.fit import app as fit
    from costmodel.predict import app as predict
    from costmodel.validate import app as validate
    from morvit.weights import save_checkpoint
    from profiler.export import exported
    from profiler.packing import packed
    from tests.morvit.networks import network
    from tests.morvit.test_weights import CARD

    shutil.copytree(REFERENCE / "fits", world / "reference" / "fits")
    mine = world / "measurements" / "mine"
    first = load(SWEEP / SESSION, Session)
    points = first.plan.points[:: max(1, len(first.plan.points) // POINTS)][:POINTS]
    plan = type(first.plan)(name="slice", runs=RUNS, points=points)
    save(Session(**{**dict(first), "plan": plan}), mine / SESSION)
    chosen = {point.id for point in points}
    with Journal(mine / JOURNAL, Measurement) as journal:
        for record in _reference_records():
            if record.point in chosen and record.run <= RUNS:
                journal.append(record)
    for name in ("routing.parquet", "decisions.json"):
        shutil.copy(REFERENCE / name, mine / name)
    _resaved(mine / "decisions.json")
    exported(mine)
    shutil.copytree(mine, world / "measurements" / "packed")
    packed(world / "measurements" / "packed")
    (world / "measurements" / "packed" / JOURNAL).unlink()
    save(session("a", "b", "c").plan, world / "plan.json")
    (world / "table.csv").write_text(CSV)
    shutil.copy(ROOT / "scenarios/library/inspection-line.toml", world / "line.toml")
    save_checkpoint(network(), CARD, world / "toy.safetensors")
    for app, arguments in (
        (fit, ["--journal", str(mine)]),
        (validate, ["--journal", str(mine), "--own"]),
        (
            predict,
            ["--device", "all", "--batch", "8", "--offers", f"{world}/predictions/catalogue.json"],
        ),
    ):
        heard = ran(partial(app, arguments, standalone_mode=True))
        assert heard.code == 0, heard
    assert SIZE(world).code == 0


def _reference_records() -> tuple[Measurement, ...]:
    return read_journal(SWEEP / COMPACT_JOURNAL)


def _resaved(path: Path) -> None:
    """The same record, sealed: what was committed before may have no seal."""
    from domain.routing import RouterDecisions

    save(load(path, RouterDecisions), path)


def peak_bytes() -> int:
    """Most memory that this process ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
