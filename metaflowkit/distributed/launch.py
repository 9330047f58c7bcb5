"""Starting the processes of a run on this machine, as ``torchrun --standalone`` does."""

from __future__ import annotations

import logging
import os
import sys
import uuid
from collections.abc import Sequence

from metaflowkit.errors import RunError

CHECK_EVERY = 0.1  # seconds between two looks at the processes


def launch(processes: int, arguments: Sequence[str], restarts: int = 0) -> int:
    """Run ``python -m metaflowkit`` with the same arguments in several processes, and wait for their end.

    Each has the torch threads that ``OMP_NUM_THREADS`` says, by default an equal share of the cores.

    Args:
        processes: their number.
        arguments: of the command line.
        restarts: how often all of them are started again after one has failed.

    Returns:
        The exit code: 0, or that of the first process that failed; 128 plus the number of the signal that ended it.

    Raises:
        RunError: the processes cannot be started.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.disable(logging.ERROR)  # the process that failed has said why
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores() // processes)))
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=restarts,
        monitor_interval=CHECK_EVERY,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "metaflowkit", *arguments)
    except ChildFailedError as error:
        code = int(error.get_first_failure()[1].exitcode)
        return code if code > 0 else 128 - code
    except SignalException as error:
        return 128 + int(error.sigval)
    except OSError as error:
        raise RunError(f"--nproc: {processes} processes cannot be started ({error}); start fewer") from None
    return 0


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
