"""What a report is made of: each part as it was found, or why it is not there."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from domain.designs import Designs
from domain.fit import Fit, Validation
from domain.measurement import Measurement
from domain.routing import RouterDecisions, RoutingDistribution
from domain.scenario import Offers, Plan

Part = TypeVar("Part", covariant=True)

# `domain.locale.text` with the language of the report already chosen.
Say = Callable[..., str]


@dataclass(frozen=True, kw_only=True)
class Found(Generic[Part]):
    """A part that was read; `source` is its file, seen from the results folder."""

    value: Part
    source: str
    is_reference: bool


@dataclass(frozen=True, kw_only=True)
class Absent:
    """A part that is not there: the file wanted, and the command that makes it.

    `complaint` says what is wrong with a file that is there, but can not be used.
    """

    wanted: str
    command: str
    complaint: str = ""


@dataclass(frozen=True, kw_only=True)
class ReportContents:
    """Everything that a report shows."""

    made_at: str
    measurements: Found[tuple[Measurement, ...]] | Absent
    decisions: Found[RouterDecisions] | Absent
    routing: Found[RoutingDistribution] | Absent
    fit: Found[Fit] | Absent
    validation: Found[Validation] | Absent
    offers: Found[Offers] | Absent
    plan: Found[Plan] | Absent
    designs: Found[Designs] | Absent

    @property
    def parts(self) -> dict[str, Found[object] | Absent]:
        """Each part by its name, in the order of the report."""
        return {
            "measurements": self.measurements,
            "decisions": self.decisions,
            "routing": self.routing,
            "fit": self.fit,
            "validation": self.validation,
            "offers": self.offers,
            "plan": self.plan,
            "designs": self.designs,
        }


def sentence_of(absent: Absent, say: Say) -> str:
    """Why a part is not available, and what to run."""
    command = f"`{absent.command}`"
    if absent.complaint:
        return say("page.unusable", complaint=absent.complaint.rstrip("."), command=command)
    return say("page.absent", wanted=absent.wanted, command=command)
