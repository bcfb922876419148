"""Batch norm in evaluation mode folded into the convolution before it.

    gamma (W x + b - mean) / sqrt(var + eps) + beta = (s W) x + s (b - mean) + beta,
    s = gamma / sqrt(var + eps)

The pairs are found by torch.fx's symbolic tracing, but the model's own forward is kept: only its
modules change.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights


class Pair(NamedTuple):
    """A convolution and the batch norm that alone uses its output."""

    conv: nn.Conv2d
    norm: nn.BatchNorm2d


def find_pairs(model: nn.Module) -> list[Pair]:
    """Find the batch norms that can be folded, of a model in evaluation mode.

    What cannot be traced as a whole is searched child by child; where nothing can be traced or
    folded, the list is empty. Modules that are called more than once, whose parameters are used
    outside their own forward, or that have hooks are left out.
    """
    search = _Search()
    search.visit(model)
    return [pair for pair in search.pairs if search.is_private(pair)]


def make_room(model: nn.Module, pairs: list[Pair]) -> None:
    """Replace the batch norms by identities and give the convolutions a bias, in place.

    Weights and biases are left to `fold`.
    """
    norms = {id(pair.norm) for pair in pairs}
    for name, module in list(model.named_modules(remove_duplicate=False)):
        if id(module) in norms:
            model.set_submodule(name, nn.Identity())
    for conv, norm in pairs:
        if conv.bias is None:
            conv.bias = nn.Parameter(conv.weight.new_zeros(norm.num_features))


@torch.no_grad()
def fold(pair: Pair, weight: Tensor, bias: Tensor) -> None:
    """Write the folded weight (out, in, h, w) and bias (out,) of a pair into given tensors."""
    conv, norm = pair
    assert norm.running_mean is not None and norm.running_var is not None
    folded = fuse_conv_bn_weights(
        conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight,
        norm.bias,
    )  # fmt: skip
    for tensor, value in zip((weight, bias), folded, strict=True):
        tensor.copy_(value)


class _Search:
    """Pairs within each traced part, and how often each module is used by all of them."""

    def __init__(self) -> None:
        self.pairs: list[Pair] = []
        self.uses: Counter[int] = Counter()
        self.visited: set[int] = set()

    def visit(self, module: nn.Module) -> None:
        if id(module) in self.visited:
            return
        self.visited.add(id(module))
        try:
            graph = fx.Tracer().trace(module)
        except Exception:
            # Tracing runs the forward with stand-ins for tensors, on which any code may fail in
            # its own way; folding is an optimisation that may be left out.
            for child in module.children():
                # An untraced parent calls its children: one that a traced part calls too is shared.
                self.uses[id(child)] += 1
                self.visit(child)
            return
        self._read(graph, dict(module.named_modules(remove_duplicate=False)))

    def _read(self, graph: fx.Graph, modules: Mapping[str, nn.Module]) -> None:
        for node in graph.nodes:
            if node.op == "call_module":
                self.uses[id(modules[node.target])] += 1
                self._match(node, modules)
            elif node.op == "get_attr":
                owner = node.target.rpartition(".")[0]
                self.uses[id(modules[owner])] += 2

    def _match(self, node: fx.Node, modules: Mapping[str, nn.Module]) -> None:
        norm = modules[str(node.target)]
        if len(node.args) != 1 or node.kwargs or not isinstance(node.args[0], fx.Node):
            return
        before = node.args[0]
        if before.op != "call_module" or len(before.users) != 1:
            return
        conv = modules[str(before.target)]
        # Exact types: a subclass may compute something else.
        if type(conv) is nn.Conv2d and type(norm) is nn.BatchNorm2d:
            self.pairs.append(Pair(conv, norm))

    def is_private(self, pair: Pair) -> bool:
        has_statistics = pair.norm.running_mean is not None and pair.norm.running_var is not None
        return has_statistics and all(
            self.uses[id(module)] == 1 and not _has_hooks(module) for module in pair
        )


def _has_hooks(module: nn.Module) -> bool:
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )
