"""Processes of one group, forked from the test's, for tests of what they share."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import socket
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

import torch

from metaflowkit.distributed.processes import joined
from metaflowkit.distributed.world import World

PATIENCE = 60.0  # seconds


def run_in_group(size: int, function: Callable[[World], Any], timeout: float = 20.0, abandon: Sequence[int] = ()) -> list[Any]:
    """What ``function(world)`` returns or raises in each process, by rank; None of one that was killed, and of those in ``abandon``, which are."""
    port = _free_port()
    context = multiprocessing.get_context("fork")
    ends, processes = [], []
    for rank in range(size):
        receiving, sending = context.Pipe(duplex=False)
        process = context.Process(target=_serve, args=(rank, size, port, function, timeout, sending), daemon=True)
        process.start()
        sending.close()
        ends.append(receiving)
        processes.append(process)
    results: list[Any] = [None] * size
    try:
        for rank in set(range(size)) - set(abandon):
            assert ends[rank].poll(PATIENCE), "the process neither ends nor fails"
            with contextlib.suppress(EOFError):
                results[rank] = ends[rank].recv()
    finally:
        for process in processes:
            process.kill()
            process.join()
    return results


def _serve(rank: int, size: int, port: int, function: Callable[[World], Any], timeout: float, sending: Connection) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)  # the parent's OpenMP threads are not forked
    try:
        with joined(timeout) as world:
            result = function(world)
    except BaseException as error:
        result = error
    sending.send(result)
    sending.close()
    os._exit(0)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
