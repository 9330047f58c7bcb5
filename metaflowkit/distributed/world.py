"""The processes that run a pipeline together, as its parts see them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from metaflowkit.errors import MetaflowkitError, RunError

if TYPE_CHECKING:
    from torch import Tensor

V = TypeVar("V")


class EndedElsewhere(MetaflowkitError):
    """Another process of the run has failed, and says why; this one ends without a message.

    Args:
        exit_code: that of the process that failed.
    """

    def __init__(self, exit_code: int) -> None:
        super().__init__("another process of this run has failed; see its message")
        self.exit_code = exit_code


class LostProcess(RunError):
    """Another process of the run does not answer any more."""


class World:
    """The processes of a run, each with a rank; this one is alone, so that nothing has to be exchanged.

    Every method but :meth:`share` must be called by all processes, in the same order.

    Attributes:
        rank: the number of this process, from 0.
        size: how many processes there are.
        local_rank: its number among those on its machine.
    """

    rank = 0
    size = 1
    local_rank = 0

    @property
    def first(self) -> bool:
        """Whether it is the process that writes, prints and decides."""
        return self.rank == 0

    def share(self, count: int) -> range:
        """Which of ``count`` items this process works on: every ``size``-th, from its rank on."""
        return range(self.rank, count, self.size)

    def gather(self, value: V) -> list[V]:
        """The values of all processes, by rank."""
        return [value]

    def add(self, values: Tensor) -> Tensor:
        """The sum of a tensor over all processes, the same bits in each of them."""
        return values

    def interleaved(self, items: Sequence[V]) -> list[V]:
        """All items in their order, where each process gives those of its :meth:`share`."""
        shares = self.gather(list(items))
        return [shares[i % self.size][i // self.size] for i in range(sum(map(len, shares)))]

    @contextmanager
    def together(self) -> Iterator[None]:
        """A block that all processes complete, or none: where it fails in one of them, it fails in all.

        Raises:
            MetaflowkitError: that of the process of lowest rank that has one, in that process; :class:`EndedElsewhere` in the others.
        """
        yield

    def from_first(self, make: Callable[[], V]) -> V:
        """What ``make`` returns in the first process, the only one to call it.

        Raises:
            MetaflowkitError: as in :meth:`together`.
        """
        value: list[V] = []
        with self.together():
            if self.first:
                value.append(make())
        return self.gather(value)[0][0]

    def one_by_machine(self, make: Callable[[], V]) -> V:
        """What ``make`` returns, called by one process of each machine before the others, which then find its files."""
        return make()


ALONE = World()
