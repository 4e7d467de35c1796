"""Finds the newest of each part in `results/`, or falls back on the committed reference."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from domain import store
from domain.complaint import Complaint, CorruptFile, nearest
from domain.designs import Designs
from domain.fit import Fit, Validation
from domain.record import Record
from domain.routing import RouterDecisions
from domain.scenario import Offers, Plan
from domain.shell import warn
from reports.contents import Absent, Found, ReportContents

Value = TypeVar("Value")
RecordType = TypeVar("RecordType", bound=Record)

JOURNAL, DECISIONS, ROUTING = store.JOURNAL, "decisions.json", "routing.parquet"
SESSIONS = f"measurements/*/{JOURNAL}"
VALIDATION = "predictions/validation_pairs.json"
FITS = "fits/*.json"
OFFERS, PLANS = "predictions/catalogue.json", "plans/*.json"
DESIGNS = "predictions/designs.json"

MEASURE = "make profile"
DESIGN = f"python -m costmodel.design --p99-ms 30 --price-usd 2000 --designs results/{DESIGNS}"
PREDICT = f"python -m costmodel.predict --device all --batch 8 --offers results/{OFFERS}"


def contents_of(session: Path | None, made_at: str) -> ReportContents:
    """The newest of each part; with a `session`, its journal and what lies beside it.

    Raises Complaint where the named session has no journal, CorruptFile where that journal can not
    be read. A bad file that nobody named becomes a part that says what is wrong with it.
    """
    journal: Path | None
    if session is None:
        journal = _newest(SESSIONS, store.reference_journal())
    else:
        journal = store.journal_in(session)
        if not journal.is_file():
            known = [path.parent.name for path in store.results_root().glob(SESSIONS)]
            raise Complaint(
                f"{session} holds no {JOURNAL}; name a session's folder ("
                f"{nearest(session.name, known) if known else f'there is none; run {MEASURE}'})"
            )
        store.read_journal(journal)
    folder = None if journal is None else journal.parent
    measurements = _part(journal, store.read_journal, JOURNAL, MEASURE)
    if journal is not None and isinstance(measurements, Found):
        warn(store.unread_tail(journal))
    return ReportContents(
        made_at=made_at,
        measurements=measurements,
        decisions=_part(
            _beside(folder, DECISIONS), _reader_of(RouterDecisions), DECISIONS, MEASURE
        ),
        routing=_part(_beside(folder, ROUTING), store.read_trace, ROUTING, MEASURE),
        fit=_part(
            _newest(FITS, store.reference_root() / store.REFERENCE_FIT),
            _reader_of(Fit),
            FITS,
            "python -m costmodel.fit",
        ),
        validation=_part(
            _newest(VALIDATION, store.reference_root() / "validation_pairs.json"),
            _reader_of(Validation),
            VALIDATION,
            "python -m costmodel.validate",
        ),
        offers=_part(_newest(OFFERS), _reader_of(Offers), OFFERS, PREDICT),
        plan=_part(_newest(PLANS), _reader_of(Plan), PLANS, "python -m scenarios.size"),
        designs=_part(_newest(DESIGNS), _reader_of(Designs), DESIGNS, DESIGN),
    )


def _part(
    path: Path | None, read: Callable[[Path], Value], wanted: str, command: str
) -> Found[Value] | Absent:
    if path is None:
        return Absent(wanted=f"results/{wanted}" if "/" in wanted else wanted, command=command)
    try:
        return Found(
            value=read(path),
            source=_shown(path),
            is_reference=path.resolve().is_relative_to(store.reference_root().resolve()),
        )
    except CorruptFile as complaint:
        return Absent(wanted=_shown(path), command=command, complaint=str(complaint))


def _reader_of(kind: type[RecordType]) -> Callable[[Path], RecordType]:
    return lambda path: store.load(path, kind)


def _beside(folder: Path | None, name: str) -> Path | None:
    """A file of the session; where it has none, the one of the reference."""
    folders = [store.reference_root()] if folder is None else [folder, store.reference_root()]
    return next((each / name for each in folders if (each / name).is_file()), None)


def _newest(pattern: str, reference: Path | None = None) -> Path | None:
    """The newest file of this machine; where there is none, `reference`, or the reference's own."""
    own, committed = (
        max(root.glob(pattern), key=_age, default=None)
        for root in (store.results_root(), store.reference_root())
    )
    return own or (committed if reference is None or not reference.is_file() else reference)


def _age(path: Path) -> tuple[int, str]:
    # A checkout gives all files about the same time; then the name decides.
    return path.stat().st_mtime_ns, path.name


def _shown(path: Path) -> str:
    """`path` as seen from the folder that holds the results: it says nothing of the user's disk."""
    root = store.results_root().resolve()
    resolved = path.resolve()
    if resolved.is_relative_to(root):
        return f"results/{resolved.relative_to(root).as_posix()}"
    return "/".join(resolved.parts[-2:])
