"""The buffers of a model while a task uses it: what ``forward`` writes to them stays with the task and is dropped after it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from metaflowkit.engines.safety import TASK_BY_TASK
from metaflowkit.errors import ConfigError

Buffers = dict[str, dict[str, Tensor | None]]


class TaskBuffers:
    """A task's own copy of a model's buffers, which every call of the task reads and writes.

    A call sees what earlier calls of the same task wrote, in place or by rebinding (``self.count = self.count + 1``), as a
    constant: no gradient flows from a call to a later one through a buffer. The model's buffers are those it had before.

    Args:
        model: whose buffers the task starts from.
        batched: whether calls run inside vmap, where writing is refused, since each task would need a value of its own.
    """

    def __init__(self, model: nn.Module, batched: bool = False) -> None:
        self.batched = batched
        self._model, self._modules = model, _modules(model)
        self.values: Buffers = _cloned({name: dict(module._buffers) for name, module in self._modules})

    @contextmanager
    def within(self, network: nn.Module) -> Iterator[None]:
        """Within this context the network has the task's buffers.

        Args:
            network: the model, or a copy of it with the same modules.

        Raises:
            ConfigError: the network rebinds a buffer inside vmap.
        """
        modules = self._modules if network is self._model else _modules(network)
        previous = {id(module): dict(module._buffers) for _, module in modules}
        versions = {id(x): _version(x) for buffers in self.values.values() for x in buffers.values() if x is not None and not self.batched}
        for name, module in modules:
            _refill(module, self.values[name])
        try:
            yield
            after = {name: dict(module._buffers) for name, module in modules}
        finally:
            for _, module in modules:
                _refill(module, previous[id(module)])
        if self.batched:
            self._refuse_rebinding(after)
        else:
            self.values = _kept(self.values, after, versions)

    def snapshot(self) -> Buffers:
        """What the buffers hold now, for :meth:`restore`."""
        return self.values if self.batched else _cloned(self.values)

    def restore(self, snapshot: Buffers) -> None:
        """Go back to a snapshot, so that a step that is computed again starts from the same buffers."""
        self.values = snapshot if self.batched else _cloned(snapshot)

    def _refuse_rebinding(self, after: Buffers) -> None:
        for name, buffers in after.items():
            for key, value in buffers.items():
                if value is not self.values[name].get(key):
                    path = f"{name}.{key}" if name else key
                    raise ConfigError(f"inner.engine: the network writes its buffer {path} in forward, which cannot be batched over tasks; {TASK_BY_TASK}")


def _modules(network: nn.Module) -> list[tuple[str, nn.Module]]:
    return list(network.named_modules(remove_duplicate=False))  # in a copy made by higher a shared module is several


def _refill(module: nn.Module, buffers: dict[str, Tensor | None]) -> None:
    module._buffers.clear()
    module._buffers.update(buffers)


def _version(x: Tensor) -> int | None:
    return None if x.is_inference() else x._version


def _cloned(values: Buffers) -> Buffers:
    copies: dict[int, Tensor] = {}  # a tensor under two names stays one
    for buffers in values.values():
        for x in buffers.values():
            if x is not None and id(x) not in copies:
                copies[id(x)] = x.detach().clone()
    return {name: {key: None if x is None else copies[id(x)] for key, x in buffers.items()} for name, buffers in values.items()}


def _kept(before: Buffers, after: Buffers, versions: dict[int, int | None]) -> Buffers:
    """The buffers after a call: each that was written is a new tensor without graph, since the graph of the call may hold the old one."""
    copies: dict[int, Tensor] = {}

    def kept(x: Tensor | None) -> Tensor | None:
        if x is None or (id(x) in versions and versions[id(x)] == _version(x)):
            return x
        if id(x) not in copies:
            copies[id(x)] = x.detach().clone()
        return copies[id(x)]

    return {name: {key: kept(x) for key, x in buffers.items()} for name, buffers in after.items()}
