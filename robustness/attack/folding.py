"""Batch norm in evaluation mode folded into the convolution before it.

gamma (W x + b - mean) / sqrt(var + eps) + beta = (s W) x + s (b - mean) + beta,
s = gamma / sqrt(var + eps)

The pairs are found by torch.fx's symbolic tracing, but the model's own forward is kept: only its
modules change.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights


def find_pairs(model: nn.Module) -> list[tuple[str, str]]:
    """Name each convolution and batch norm that can be folded, of a model in evaluation mode.

    What cannot be traced as a whole is searched child by child; where nothing can be traced or
    folded, the list is empty. Modules that are called more than once, whose parameters are used
    outside their own forward, or that have hooks are left out.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    uses: Counter[nn.Module] = Counter()
    visited: set[nn.Module] = set()
    found: list[tuple[str, str]] = []

    def visit(name: str) -> None:
        def inside(target: Any) -> str:
            return ".".join(filter(None, (name, str(target))))

        if modules[name] in visited:
            return
        visited.add(modules[name])
        try:
            graph = fx.Tracer().trace(modules[name])
        except Exception:
            # Tracing runs the forward with stand-ins for tensors, on which any code may fail in
            # its own way; folding is an optimisation that may be left out.
            for child, module in modules[name].named_children():
                # An untraced parent calls its children: one that a traced part calls too is shared.
                uses[module] += 1
                visit(inside(child))
            return
        for node in graph.nodes:
            if node.op == "get_attr":
                uses[modules[inside(node.target.rpartition(".")[0])]] += 2
            elif node.op == "call_module":
                uses[modules[inside(node.target)]] += 1
                before: Any = node.args[0] if node.args else None
                called = isinstance(before, fx.Node) and before.op == "call_module"
                # What else uses the convolution's output needs it as it is.
                if called and len(before.users) == 1:
                    found.append((inside(before.target), inside(node.target)))

    visit("")
    return [
        (conv, norm)
        for conv, norm in found
        # Exact types: a subclass may compute something else.
        if type(modules[conv]) is nn.Conv2d
        and type(modules[norm]) is nn.BatchNorm2d
        and modules[norm].running_mean is not None
        and all(uses[each] == 1 and not _has_hooks(each) for each in (modules[conv], modules[norm]))
    ]


def make_room(model: nn.Module, pairs: list[tuple[str, str]]) -> None:
    """Replace the batch norms by identities and give the convolutions a bias, in place.

    Weights and biases are left to `fold`.
    """
    norms = {model.get_submodule(norm) for _, norm in pairs}
    for name, module in list(model.named_modules(remove_duplicate=False)):
        if module in norms:
            model.set_submodule(name, nn.Identity())
    for name, _ in pairs:
        conv: Any = model.get_submodule(name)
        if conv.bias is None:
            conv.bias = nn.Parameter(conv.weight.new_zeros(conv.out_channels))


@torch.no_grad()
def fold(conv: Any, norm: Any, into: Any) -> None:
    """Write the weight and bias of a convolution and its batch norm into another convolution."""
    weight, bias = fuse_conv_bn_weights(
        conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight,
        norm.bias,
    )  # fmt: skip
    into.weight.copy_(weight)
    into.bias.copy_(bias)


def _has_hooks(module: nn.Module) -> bool:
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )
