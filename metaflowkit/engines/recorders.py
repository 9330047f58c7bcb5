"""Ways to record a computation: a CUDA graph of what it launches, and a compiled trace of torch's operations."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx
from torch.func import functionalize
from torch.fx.experimental.proxy_tensor import make_fx

from metaflowkit.engines.kernels import TRACED
from metaflowkit.engines.recording import Computation
from metaflowkit.stages import stage
from metaflowkit.trees import Tree, tensors, tree_map

ATEN = torch.ops.aten
WARM_UP = 3  # calls before a recording, as torch's documentation of CUDA graphs asks for


def record_cuda_graph(computation: Computation, inputs: tuple[Tree, ...]) -> Computation:
    """A recorder by CUDA graphs, which take thousands of small kernels off Python's hands.

    Reference:
        https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
    """
    static = tree_map(Tensor.clone, inputs)
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            computation(*static)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = computation(*static)

    def replay(*inputs: Tree) -> Tree:
        for target, source in zip(tensors(static), tensors(inputs)):
            target.copy_(source, non_blocking=True)
        graph.replay()
        return tree_map(Tensor.clone, results)  # the next replay writes to the same memory

    return replay


def record_compiled(computation: Computation, inputs: tuple[Tree, ...]) -> Computation:
    """A recorder by torch's compiler Inductor, which turns chains of small operations into single kernels, for as many threads as torch has now.

    Derivatives and vmap are traced away before it sees the computation.

    Raises:
        RuntimeError: the computation reads a tensor's value in Python, or there is no working C++ compiler.
    """
    with stage("compiling the meta-gradient"):
        graph, read, results = trace(computation, inputs)
        compiled = _inductor(graph, [*tensors(inputs), *read])

    def replay(*inputs: Tree) -> Tree:
        leaves = iter(compiled(*tensors(inputs), *read))
        return tree_map(lambda _: next(leaves), results)

    return replay


def trace(computation: Computation, inputs: tuple[Tree, ...]) -> tuple[fx.GraphModule, list[Tensor], Tree]:
    """The operations of a computation.

    Returns:
        The graph, without operations in place, as a function of the inputs' tensors and of those that the computation reads besides, to a list of the results' tensors;
        those other tensors; a tree in the form of the results.
    """
    form: list[Tree] = []

    def flat(*leaves: Tensor) -> list[Tensor]:
        remaining = iter(leaves)
        results = computation(*tree_map(lambda _: next(remaining), inputs))
        form.append(tree_map(lambda x: x.new_empty(0), results))
        return tensors(results)

    token = TRACED.set(True)
    try:
        traced = make_fx(flat)(*tensors(inputs))
    finally:
        TRACED.reset(token)
    read = [x.detach() for x in _lift_constants(traced)]  # the same memory without a request for gradients, or the compiler would add a backward pass
    module = make_fx(functionalize(traced))(*tensors(inputs), *read)
    for node in module.graph.nodes:
        if node.target is ATEN.view.default:  # what a kernel lays out in one way here may be laid out in another way by a compiler
            node.target = ATEN.reshape.default
    module.graph.eliminate_dead_code()
    module.recompile()
    return module, read, form[0]


def _lift_constants(module: fx.GraphModule) -> list[Tensor]:
    """Turn the tensors that a graph holds into further arguments: a compiler may take the values of constants into its code, and parameters change."""
    graph = module.graph
    last = [node for node in graph.nodes if node.op == "placeholder"][-1]
    arguments: dict[str, fx.Node] = {}
    for node in [node for node in graph.nodes if node.op == "get_attr"]:
        if node.target not in arguments:
            with graph.inserting_after(last):
                last = arguments[node.target] = graph.placeholder(f"read_{len(arguments)}")
        node.replace_all_uses_with(arguments[node.target])
        graph.erase_node(node)
    module.recompile()
    return [getattr(module, name) for name in arguments]


def _inductor(graph: fx.GraphModule, inputs: list[Tensor]) -> Any:
    from torch._inductor import compile as compile_graph  # imported late: it takes seconds

    return compile_graph(graph, list[Any](inputs))
