"""The one switch between the hand-written gradients of the losses and ordinary autograd.

The autograd functions of `slabs`, `sums`, `attention` and `thin` save memory and time, but a debugger cannot step
through their gradients. With ``NAPARI_UNETVNET_PLAIN_LOSSES=1`` in the environment each is replaced by the plain
formula that stands next to it. A test holds both to the same value and gradient.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch.autograd import Function

__all__ = ["PLAIN_LOSSES", "apply"]

PLAIN_LOSSES = "NAPARI_UNETVNET_PLAIN_LOSSES"

Inputs = ParamSpec("Inputs")
Output = TypeVar("Output")


def apply(
    function: type[Function], plain: Callable[Inputs, Output], *inputs: Inputs.args, **options: Inputs.kwargs
) -> Output:
    """Apply an autograd function, or its plain formula if the environment asks for it.

    Parameters
    ----------
    plain : callable
        The same computation in differentiable operations of torch.
    *inputs
        Arguments of both.
    **options
        None: autograd functions take positional arguments only.

    Returns
    -------
    Tensor or tuple of Tensor
    """
    if os.environ.get(PLAIN_LOSSES) == "1":
        return plain(*inputs, **options)
    output: Output = function.apply(*inputs, **options)  # type: ignore[no-untyped-call]
    return output
