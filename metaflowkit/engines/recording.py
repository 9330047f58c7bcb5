"""Computations that are recorded once and replayed without their Python code."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, NoReturn, Protocol

from metaflowkit.errors import ConfigError
from metaflowkit.trees import Tree, tensors

Computation = Callable[..., Tree]

KEPT = 4  # recordings, each of which holds the memory of a meta-gradient


class Recorder(Protocol):
    """Records what a computation does on a device."""

    def __call__(self, computation: Computation, inputs: tuple[Tree, ...]) -> Computation:
        """A computation of the same results, for inputs of the same shapes, that runs no Python of the first one again.

        Tensors that the computation reads besides its inputs are read where they lie at every call.
        """


class Recordings:
    """Computations by what determines them besides their inputs' values; each is recorded when it is called for the second time.

    Args:
        recorder: of the device.
        setting: of the engine, by which recordings are asked for, for messages.
    """

    def __init__(self, recorder: Recorder, setting: str) -> None:
        self._recorder, self.setting = recorder, setting
        self._entries: OrderedDict[Hashable, tuple[Any, Computation | None]] = OrderedDict()

    def __call__(self, computation: Computation, inputs: tuple[Tree, ...], key: Hashable, owner: Any) -> Computation:
        """A computation, or its recording.

        Args:
            computation: pure but for the tensors that it reads.
            inputs: arguments that it is given, or others of the same shapes.
            key: equal for calls of which one may be replayed in place of the other.
            owner: kept with the recording, so that no other object takes over an identity that is part of the key.

        Raises:
            ConfigError: it cannot be recorded.
        """
        key = (key, *((x.shape, x.stride(), x.dtype, x.device) for x in tensors(inputs)))
        seen = key in self._entries
        _, recorded = self._entries.pop(key, (owner, None))
        if seen and recorded is None:
            recorded = self._record(computation, inputs)
        self._entries[key] = (owner, recorded)
        while len(self._entries) > KEPT:
            self._entries.popitem(last=False)
        return recorded or computation

    def _record(self, computation: Computation, inputs: tuple[Tree, ...]) -> Computation:
        try:
            return self._recorder(computation, inputs)
        except RuntimeError as error:
            text = str(error).splitlines()[0]
            raise ConfigError(
                f"inner.engine.{self.setting}: the meta-gradient cannot be recorded ({text}); set {self.setting}: false, or compute without .item() and the like"
            ) from error


class Unrecorded:
    """Stands for a number that differs from step to step, which a recording would keep for ever; every use of it raises.

    Args:
        name: of the number.
        setting: see :class:`Recordings`.
    """

    def __init__(self, name: str, setting: str) -> None:
        self._name, self._setting = name, setting

    def _refuse(self, *_: Any) -> NoReturn:
        raise ConfigError(
            f"inner.engine.{self._setting}: {self._name} differs from step to step, and a recorded meta-gradient would keep its first value; set {self._setting}: false"
        )

    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __bool__ = __int__ = __index__ = __float__ = __str__ = __repr__ = __format__ = _refuse
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = __floordiv__ = __mod__ = __pow__ = __neg__ = _refuse
    __hash__ = None  # type: ignore[assignment]
