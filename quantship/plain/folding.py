"""Fold batch norms into the convolutions that they follow, as they would run after training."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def fold_batch_norms(module: nn.Module, *, inplace: bool = False) -> nn.Module:
    """Merge every BatchNorm2d, with its running statistics, into the Conv2d before it.

    A merged batch norm becomes ``nn.Identity``. One that follows something else stays, and so does
    one behind a convolution whose output is used elsewhere too.

    Args:
        module: Any module.
        inplace: Change the module itself rather than a copy.

    Returns:
        The folded module; in evaluation mode its outputs are the module's up to float rounding.

    Raises:
        ValueError: It cannot be seen what comes before a batch norm, or one keeps no statistics.
    """
    norms = [name for name, one in module.named_modules() if isinstance(one, nn.BatchNorm2d)]
    pairs = _pairs(module, norms) if norms else {}
    for norm_name in pairs:
        if module.get_submodule(norm_name).running_mean is None:
            raise ValueError(
                f"batch norm '{norm_name}' keeps no running statistics, so it cannot be folded "
                "into the convolution before it; train it with track_running_stats=True"
            )
    folded = module if inplace else copy.deepcopy(module)
    for norm_name, layer_name in pairs.items():
        layer, norm = folded.get_submodule(layer_name), folded.get_submodule(norm_name)
        assert isinstance(layer, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        modes = layer.training, norm.training
        fused = fuse_conv_bn_eval(layer.eval(), norm.eval())
        # PyTorch freezes the new bias of a convolution that had none.
        assert fused.bias is not None
        fused.bias.requires_grad_(layer.weight.requires_grad)
        folded.set_submodule(layer_name, fused.train(modes[0]))
        folded.set_submodule(norm_name, nn.Identity().train(modes[1]))
    return folded


def _pairs(module: nn.Module, norms: list[str]) -> dict[str, str]:
    """Names of batch norms that can be merged, each with that of its convolution."""
    try:
        graph = fx.Tracer().trace(module)
    except Exception as error:  # tracing runs the module's own code
        before = dict(_before_in_sequences(module))
        unseen = [name for name in norms if name not in before]
        if unseen:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ValueError(
                f"it cannot be seen what comes before batch norm '{unseen[0]}': it stands behind "
                f"nothing in an nn.Sequential, and torch.fx cannot trace the module ({reason}); "
                "put it into an nn.Sequential with its convolution"
            ) from error
    else:
        before = dict(_before_in_graph(graph))
    return {
        norm: layer
        for norm, layer in before.items()
        if isinstance(module.get_submodule(norm), nn.BatchNorm2d)
        and isinstance(module.get_submodule(layer), nn.Conv2d)
    }


def _before_in_graph(graph: fx.Graph) -> Iterator[tuple[str, str]]:
    """Each module's name with that of the one whose only use it is."""
    calls = Counter(node.target for node in graph.nodes if node.op == "call_module")
    for node in graph.nodes:
        before = node.args[0] if node.op == "call_module" and node.args else None
        if not isinstance(before, fx.Node) or before.op != "call_module":
            continue
        if len(before.users) == calls[before.target] == calls[node.target] == 1:
            yield str(node.target), str(before.target)


def _before_in_sequences(module: nn.Module) -> Iterator[tuple[str, str]]:
    """Each module's name with that of the one before it in an nn.Sequential."""
    uses = Counter(one for _, one in module.named_modules(remove_duplicate=False))
    for name, sequence in module.named_modules():
        if type(sequence).forward is not nn.Sequential.forward:
            continue
        prefix = f"{name}." if name else ""
        for (before, layer), (after, follower) in pairwise(sequence.named_children()):
            if uses[layer] == uses[follower] == 1:
                yield prefix + after, prefix + before
