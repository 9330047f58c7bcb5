"""What the diagnosis says, line by line."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Tell = Callable[[str], None]  # told what is being computed


class Verdict(enum.Enum):
    """How a finding stands: a plain fact has no verdict, and where the checks cannot decide, they say so."""

    FACT = ""
    PASSED = "passed"
    WRONG = "WRONG"
    UNDECIDED = "cannot tell"


@dataclass(frozen=True)
class Finding:
    """One line of the diagnosis.

    Attributes:
        verdict: how it stands.
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
    count = {verdict: sum(finding.verdict is verdict for finding in findings) for verdict in Verdict}
    bad, open_ = count[Verdict.WRONG], count[Verdict.UNDECIDED]
    parts = [f"{bad} finding{'s' * (bad != 1)} wrong" if bad else "nothing is wrong" if open_ else "all checks passed"]
    parts += [f"{open_} could not be decided"] if open_ else []
    return ", ".join(parts)
