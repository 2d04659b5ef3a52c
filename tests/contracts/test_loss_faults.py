"""A network that fails must not look as if it were right."""

from __future__ import annotations

import pytest
import torch
from combinations import in_one_case

from napari_unetvnet.losses import LOSSES, build_loss


@pytest.mark.parametrize("name", LOSSES)
@in_one_case("head", lambda name: LOSSES.describe(name).facts["head_modes"])
def test_a_logit_that_is_no_number_makes_the_loss_none(name, head):
    channels = 1 if head == "binary" else 3
    logits = torch.randn(2, channels, 6, 6, generator=torch.Generator().manual_seed(0))
    logits[0, 0, 2, 2] = float("nan")
    shape = (2, 3, 6, 6) if head == "multilabel" else (2, 6, 6)
    target = torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(1))
    assert build_loss(name, head=head)(logits, target).isnan()
