"""Whether the same thing took the same time twice: a verdict with its evidence."""

from typing import Literal, Self

from pydantic import model_validator

from domain.record import Count, Estimate, Identifier, PositiveCount, Record, Sentence

Verdict = Literal["SAME", "FASTER", "SLOWER", "AMBIGUOUS", "INVALID"]


class Comparison(Record):
    """One point, before and after. `ratio` is the time after over the time before.

    `evidence` says in a sentence what the verdict rests on, or why there is none.
    """

    point: Identifier
    verdict: Verdict
    ratio: Estimate | None
    runs_before: Count
    runs_after: Count
    is_paired: bool = False
    evidence: Sentence

    @model_validator(mode="after")
    def _ratio_unless_invalid(self) -> Self:
        if (self.verdict == "INVALID") != (self.ratio is None):
            raise ValueError(f"wanted a ratio unless INVALID, got {self.ratio} for {self.verdict}")
        return self


class Comparisons(Record):
    """All points of two sessions. Stored as JSON.

    A difference up to `margin` is never called one; points are the SAME where every difference
    beyond `same_within` can be ruled out at `level`.
    """

    format: Literal[1] = 1
    before: Sentence
    after: Sentence
    margin: float
    same_within: float
    level: float
    least_runs: PositiveCount
    points: tuple[Comparison, ...]
