"""Joining the processes that ``torchrun``, or any launcher that sets its variables, has started."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from metaflowkit.distributed.world import ALONE, EndedElsewhere, LostProcess, World
from metaflowkit.errors import ConfigError, MetaflowkitError, RunError

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributed.distributed_c10d import Store

V = TypeVar("V")

TIMEOUT = 600.0  # seconds
VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
FAILURE = "failure"  # key of the store: who has said why the run ends, and its exit code
SETTLING = 3.0  # seconds in which the others notice, after the first has, that a process does not answer


def launched() -> bool:
    """Whether a launcher has started this process as one of several, or as the only one of such a group."""
    return all(os.environ.get(name) for name in VARIABLES)


def launch_id() -> str | None:
    """What stays the same where ``torchrun`` restarts its processes; None without it."""
    run_id = os.environ.get("TORCHELASTIC_RUN_ID")
    return f"{run_id} {socket.gethostname()} {os.getppid()}" if run_id else None


def is_restartable() -> bool:
    """Whether the launcher would restart the processes after a failure."""
    return int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", 0)) > 0


class Processes(World):
    """Processes that exchange values through torch.distributed.

    Args:
        store: where the processes leave notes for each other.
        timeout: seconds that a process waits for another one.
    """

    def __init__(self, rank: int, size: int, local_rank: int, store: Store, timeout: float) -> None:
        self.rank, self.size, self.local_rank, self.timeout = rank, size, local_rank, timeout
        self._store, self._waits = store, 0

    def gather(self, value: V) -> list[V]:
        """The values of all processes, by rank."""
        import torch.distributed as dist

        values: list[Any] = [None] * self.size
        with self._connected():
            dist.all_gather_object(values, value)
        return values

    def add(self, values: Tensor) -> Tensor:
        """The sum of a tensor over all processes, in place."""
        import torch.distributed as dist

        with self._connected():
            dist.all_reduce(values)
        return values

    @contextmanager
    def together(self) -> Iterator[None]:
        """A block that all processes complete, or none; see :meth:`World.together`."""
        failure: MetaflowkitError | None = None
        try:
            yield
        except EndedElsewhere:
            raise
        except MetaflowkitError as error:
            failure = error
        codes = self.gather(None if failure is None else failure.exit_code)
        failed = [rank for rank, code in enumerate(codes) if code is not None]
        if not failed:
            return
        if failure is not None and self.rank == failed[0]:
            raise failure
        raise EndedElsewhere(next(code for code in codes if code is not None))

    def one_by_machine(self, make: Callable[[], V]) -> V:
        """What ``make`` returns, in the processes of local rank 0 before the others; see :meth:`World.one_by_machine`."""
        for leaders in (True, False):
            with self.together():
                if leaders == (self.local_rank == 0):
                    value = make()
        return value

    def claim_failure(self, exit_code: int) -> int | None:
        """Be the process that says why the run ends; the exit code of the one that was faster, or None."""
        mine = f"{self.rank} {exit_code}"
        with contextlib.suppress(Exception):  # the store ends with the process that holds it
            said: str = self._store.compare_set(FAILURE, "", mine).decode()
            if said and said != mine:
                return int(said.split()[1])
        return None

    def keep_store(self) -> None:
        """Stay until the others have read why the run ends, where this process holds the store: without ``torchrun``, whose agent does."""
        if self.first and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
            time.sleep(SETTLING)

    @contextmanager
    def _connected(self) -> Iterator[None]:
        """An exchange with the other processes."""
        self._waits += 1
        try:
            yield
        except RuntimeError as error:
            raise self._lost(str(error)) from None

    def _lost(self, text: str) -> MetaflowkitError:
        """The error of an exchange that failed."""
        if "timed out" not in text.lower():
            time.sleep(SETTLING / 3)  # a process that ends with a message leaves its note before its connections close
            return LostProcess(
                "the connection to another process of this run is lost: it was killed, it ran out of memory, or its machine is gone (its own message, if it left one, is above)"
            )
        with contextlib.suppress(Exception):
            self._store.set(f"waited/{self._waits}/{self.rank}", "")
            time.sleep(SETTLING)
            silent = [str(rank) for rank in range(self.size) if not self._store.check([f"waited/{self._waits}/{rank}"])]
            if silent:
                return LostProcess(
                    f"no answer within {self.timeout:g} s from process {', '.join(silent)} of {self.size}, which hangs or is too slow; see --timeout"
                )
        return LostProcess(f"no answer within {self.timeout:g} s from another process; see --timeout")


@contextmanager
def joined(timeout: float = TIMEOUT) -> Iterator[World]:
    """The world of this process: with the others that the launcher has started, until the context ends; alone without a launcher.

    An error in one process ends all of them, and one of them alone says so: the others raise :class:`EndedElsewhere`.

    Args:
        timeout: seconds that a process waits for another one before it gives up.

    Raises:
        ConfigError: the launcher's variables are no numbers.
        RunError: the other processes cannot be reached, or are lost on the way.
    """
    if not launched():
        yield ALONE
        return
    world = _join(timeout)
    try:
        yield world
    except EndedElsewhere:
        raise
    except (Exception, KeyboardInterrupt) as error:
        code = world.claim_failure(getattr(error, "exit_code", 130))
        world.keep_store()
        if code is not None:
            raise EndedElsewhere(code) from None
        raise
    finally:
        _leave()


def _join(timeout: float) -> Processes:
    import torch
    import torch.distributed as dist
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    try:
        rank, size, port = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "MASTER_PORT"))
        local_rank = int(os.environ.get("LOCAL_RANK", rank))
    except ValueError:
        given = ", ".join(f"{name}={os.environ.get(name, '')}" for name in (*VARIABLES, "LOCAL_RANK"))
        raise ConfigError(
            f"environment: RANK, WORLD_SIZE, MASTER_PORT and LOCAL_RANK must be numbers, got {given}; start with torchrun, or unset them"
        ) from None
    where = f"{os.environ['MASTER_ADDR']}:{port}"
    limit = timedelta(seconds=timeout)
    try:
        store, rank, size = next(rendezvous("env://", timeout=limit))
        store = PrefixStore(f"attempt {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)  # torchrun keeps one store for all attempts
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
        dist.init_process_group(backend, store=PrefixStore("group", store), rank=rank, world_size=size, timeout=limit)
    except (RuntimeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:150]
        raise RunError(
            f"{where}: process {rank} of {size} on {socket.gethostname()} cannot meet the others there within {timeout:g} s ({reason}); see that all of them were started, with this "
            "address, and that it can be reached"
        ) from None
    return Processes(rank, size, local_rank, PrefixStore("metaflowkit", store), timeout)


def _leave() -> None:
    import torch.distributed as dist

    with contextlib.suppress(Exception):
        dist.destroy_process_group()
