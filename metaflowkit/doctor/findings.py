"""The findings of the diagnosis, a line each."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Tell = Callable[[str], None]  # called with what is being computed


class Verdict(enum.Enum):
    """The verdict of a finding: none for a fact, and UNDECIDED where the checks cannot decide."""

    FACT = ""
    PASSED = "passed"
    WRONG = "WRONG"
    UNDECIDED = "cannot tell"


@dataclass(frozen=True)
class Finding:
    """One line of the diagnosis.

    Attributes:
        verdict: passed, wrong or undecided; a fact has none.
        text: what was measured, and what to do where something is wrong or cannot be decided.
    """

    verdict: Verdict
    text: str

    def __str__(self) -> str:
        return f"{self.verdict.value:<11}  {self.text}"


def fact(text: str) -> Finding:
    """A finding without verdict."""
    return Finding(Verdict.FACT, text)


def wrong(text: str) -> Finding:
    """Something that must be changed."""
    return Finding(Verdict.WRONG, text)


def undecided(text: str) -> Finding:
    """Something that the checks cannot decide."""
    return Finding(Verdict.UNDECIDED, text)


def judged(passed: bool, text: str, remedy: str) -> Finding:
    """Passed, or wrong with a remedy."""
    return Finding(Verdict.PASSED, text) if passed else Finding(Verdict.WRONG, f"{text}; {remedy}")


def conclusion(findings: Sequence[Finding]) -> str:
    """The last line: how many findings are wrong, and how many could not be decided."""
    counts = {verdict: sum(finding.verdict is verdict for finding in findings) for verdict in Verdict}
    wrong_count, undecided_count = counts[Verdict.WRONG], counts[Verdict.UNDECIDED]
    parts = [f"{wrong_count} finding{'s' * (wrong_count != 1)} wrong" if wrong_count else "nothing is wrong" if undecided_count else "all checks passed"]
    parts += [f"{undecided_count} could not be decided"] if undecided_count else []
    return ", ".join(parts)
