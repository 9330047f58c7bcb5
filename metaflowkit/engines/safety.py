"""What makes a network differentiable twice, and which networks an engine must refuse."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
import torch.nn.modules.module as shared
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.utils import parametrizations

from metaflowkit.errors import ConfigError

WITHOUT_HIGHER = "choose inner.engine: {name: vectorized, chunk: 1}, with one of this library's rules"
WITHOUT_HOOKS = "remove them, and read gradients from what flow.learner.outcome returns"
BACKWARD = f"its backward hooks would change the inner gradient and the outer one, which then no longer belong to the same function; {WITHOUT_HOOKS}"
TASK_BY_TASK = "choose inner.engine: higher, or {name: vectorized, chunk: 1}"


@dataclass(frozen=True)
class UnsafeModules:
    """A kind of module that is not safe.

    Attributes:
        holds: whether a module is of that kind.
        reason: what would happen.
        remedy: what to do instead.
        vmap: unsafe under vmap only; otherwise wherever a second derivative is taken.
    """

    holds: Callable[[nn.Module], bool]
    reason: str
    remedy: str
    vmap: bool = False


def _has_pre_hook(module: nn.Module, kind: str) -> bool:
    """Whether the module has the older, hook-based form of a parametrization."""
    return any(type(hook).__name__ == kind for hook in module._forward_pre_hooks.values())


RECURRENT = nn.RNNBase | nn.RNNCellBase

UNSAFE_MODULES = (
    UnsafeModules(
        lambda m: isinstance(m, parametrizations._WeightNorm) or _has_pre_hook(m, "WeightNorm"),
        "torch's weight normalisation has a wrong second derivative",
        "write the weight as g * v / v.norm() in a parametrization of your own, or choose inner.order: first",
    ),
    UnsafeModules(
        lambda m: (isinstance(m, parametrizations._SpectralNorm) or _has_pre_hook(m, "SpectralNorm")) and m.training,
        "spectral normalisation changes its vectors at every call in training mode, so that no gradient belongs to it",
        "call .eval() on it once its vectors have settled, or leave it out",
    ),
    UnsafeModules(
        lambda m: isinstance(m, nn.EmbeddingBag | nn.CTCLoss),
        "it has no second derivative in torch",
        "use Embedding and a sum in place of EmbeddingBag, or choose inner.order: first",
    ),
    UnsafeModules(lambda m: isinstance(m, RECURRENT), "torch's recurrent layers cannot be batched over tasks", TASK_BY_TASK, vmap=True),
    UnsafeModules(
        lambda m: isinstance(m, _NormBase) and m.track_running_stats and m.training,
        "running statistics cannot be updated inside vmap",
        f"build it with track_running_stats=False (the statistics of the current set), or {TASK_BY_TASK}",
        vmap=True,
    ),
)


def unsafe(model: nn.Module, vmap: bool, second: bool) -> list[str]:
    """The unsafe modules of a model, one line each: name and type of the module, reason, remedy.

    Args:
        model: the network.
        vmap: whether tasks are batched.
        second: whether second derivatives are taken.
    """
    problems = []
    for name, module in model.named_modules():
        for entry in UNSAFE_MODULES:
            if (vmap if entry.vmap else second) and entry.holds(module):
                problems.append(f"{name} ({type(module).__name__}): {entry.reason}; {entry.remedy}")
    return problems


def hooked(model: nn.Module) -> bool:
    """Whether a call of the model calls forward hooks or forward pre-hooks."""
    return bool(shared._global_forward_hooks or shared._global_forward_pre_hooks) or any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def lost_hooks(model: nn.Module, forward: bool) -> list[str]:
    """The hooks of a model that an engine would drop, or that make its gradients wrong, one line each: their owner, reason, remedy.

    Args:
        model: the network.
        forward: whether the engine drops the forward hooks and forward pre-hooks of modules.
    """
    problems = []
    for name, module in model.named_modules():
        where = f"{name} ({type(module).__name__})"
        if forward and (module._forward_hooks or module._forward_pre_hooks):
            problems.append(f"{where}: the engine on higher drops its forward hooks; {WITHOUT_HIGHER}, or remove them")
        if module._backward_hooks or module._backward_pre_hooks:
            problems.append(f"{where}: {BACKWARD}")
    if shared._global_backward_hooks or shared._global_backward_pre_hooks:
        problems.append(f"torch.nn.modules.module, for all modules: {BACKWARD}")
    for name, p in model.named_parameters():
        if p._backward_hooks or p._post_accumulate_grad_hooks:
            problems.append(f"{name}: its hooks are never called, since engines compute with copies of parameters; {WITHOUT_HOOKS}")
    return problems


def refuse_hooks(model: nn.Module, forward: bool) -> None:
    """Raise where an engine would lose hooks; see :func:`lost_hooks`.

    Raises:
        ConfigError: it would.
    """
    if problems := lost_hooks(model, forward):
        raise ConfigError([f"inner.engine: {problem}" for problem in problems])


def draws(model: nn.Module) -> bool:
    """Whether a forward call draws random numbers."""
    return any(_chance(module) > 0 for module in model.modules())


def recurrent(model: nn.Module) -> bool:
    """Whether a layer of it is recurrent."""
    return any(isinstance(module, RECURRENT) for module in model.modules())


def _chance(module: nn.Module) -> float:
    if getattr(module, "draws_random", False):
        return 1.0
    chance = module.p if isinstance(module, _DropoutNd) else getattr(module, "dropout", 0.0) if isinstance(module, nn.MultiheadAttention | nn.RNNBase) else 0.0
    return float(chance) if module.training else 0.0


@contextmanager
def exact_convolutions(tf32: bool = False) -> Iterator[None]:
    """Convolutions and recurrent layers of a GPU compute in full float32 and deterministically.

    By default cuDNN's round their inputs to the 10 bits of TensorFloat-32, an error of 1e-3 that the inner loop amplifies,
    and sum in any order. Matrix products are in full float32 unless ``torch.set_float32_matmul_precision`` says otherwise,
    and precisions that were set per kind of layer (``torch.backends.cudnn.conv.fp32_precision``) stay as they are.

    Args:
        tf32: leave them deterministic alone, and let them and matrix products round their inputs to TensorFloat-32.
    """
    cudnn, products = torch.backends.cudnn, torch.get_float32_matmul_precision()
    try:
        allowed = cudnn.allow_tf32
    except RuntimeError:  # raised where precisions were set per kind of layer: these stay as they are
        allowed = tf32
    deterministic, cudnn.deterministic = cudnn.deterministic, True
    if allowed != tf32:
        cudnn.allow_tf32 = tf32
    if tf32:
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        cudnn.deterministic = deterministic
        if allowed != tf32:
            cudnn.allow_tf32 = allowed
        if tf32:
            torch.set_float32_matmul_precision(products)


@contextmanager
def exact_kernels(model: nn.Module) -> Iterator[None]:
    """Kernels that have second derivatives, in full float32: attention by plain products, recurrent layers without cuDNN.

    Raises:
        ConfigError: the model calls an operation that has none in torch.
    """
    with ExitStack() as stack:
        stack.enter_context(exact_convolutions(getattr(model, "precision", "float32") == "tf32"))
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        fastpath = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        stack.callback(torch.backends.mha.set_fastpath_enabled, fastpath)
        if any(isinstance(module, nn.RNNBase) for module in model.modules()):
            stack.callback(setattr, torch.backends.cudnn, "enabled", torch.backends.cudnn.enabled)
            torch.backends.cudnn.enabled = False
        try:
            yield
        except RuntimeError as error:
            if "derivative for aten::" not in str(error):
                raise
            raise ConfigError(
                f"inner.order: the network calls an operation without second derivative ({str(error).splitlines()[0]}); "
                "replace it, such as Hardsigmoid by Sigmoid, or choose inner.order: first"
            ) from error


@contextmanager
def without_dropout(model: nn.Module) -> Iterator[None]:
    """Modules with dropout drop nothing; the others stay in their mode."""
    dropout_modules = [module for module in model.modules() if _chance(module) > 0]
    try:
        for module in dropout_modules:
            module.training = False
        yield
    finally:
        for module in dropout_modules:
            module.training = True
