"""What every member of the loss table must do; a new member is held to it without an edit here."""

from __future__ import annotations

import pytest
import torch

from napari_unetvnet.errors import DataProblem, SettingsProblem
from napari_unetvnet.losses import LOSSES, build_loss
from napari_unetvnet.settings import IGNORE

CHANNELS = {"binary": 1, "multiclass": 3, "multilabel": 3}
SHAPES = {"2D": (5, 6), "3D": (3, 4, 5)}
PAIRS = [(name, head) for name in LOSSES for head in LOSSES.describe(name).facts["head_modes"]]
every_loss = pytest.mark.parametrize(("name", "head"), PAIRS)
both_shapes = pytest.mark.parametrize("size", SHAPES.values(), ids=SHAPES)


def a_target(head, size, *, count=2, absent=False, seed=0):
    """Class indices (B, *S), or for several labels a voxel (B, K, *S); if ``absent``, the last class is nowhere."""
    generator = torch.Generator().manual_seed(seed)
    if head == "multilabel":
        target = torch.randint(0, 2, (count, 3, *size), generator=generator)
        target[:, -1] *= not absent
        return target
    classes = {"binary": 2, "multiclass": 3}[head]
    return torch.randint(0, classes - absent, (count, *size), generator=generator)


def truth(target, head):
    """The target with a channel for each class, (B, K, *S)."""
    if head == "multilabel":
        return target.double()
    return torch.stack([target == k for k in ([1] if head == "binary" else range(3))], dim=1).double()


def right(target, head, scale):
    """Logits that say the truth."""
    return ((2 * truth(target, head) - 1) * scale).float()


def some_logits(head, size, *, count=2, seed=1, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, CHANNELS[head], *size, generator=generator, dtype=torch.float64).to(dtype)


def a_mask(size, count=2):
    """True at about a third of the voxels, (B, *S)."""
    return torch.rand(count, *size, generator=torch.Generator().manual_seed(2)) < 0.35


def everywhere(mask, like):
    """A voxel mask (B, *S) for all channels of an array, if it has some."""
    return mask if mask.ndim == like.ndim else mask.unsqueeze(1).expand_as(like)


def ignoring(target, mask):
    return target.masked_fill(everywhere(mask, target), IGNORE)


def value_and_gradient(loss, logits, *rest):
    logits = logits.clone().requires_grad_()
    value = loss(logits, *rest)
    value.backward()
    assert value.ndim == 0
    return value.detach(), logits.grad


@every_loss
@both_shapes
@pytest.mark.parametrize("absent", [False, True])
def test_a_perfect_prediction_costs_nothing(name, head, size, absent):
    target = a_target(head, size, absent=absent)
    assert build_loss(name, head=head)(right(target, head, 50), target).item() == pytest.approx(0, abs=1e-5)


@every_loss
@both_shapes
def test_costs_more_the_worse_the_prediction(name, head, size):
    target = a_target(head, size)
    loss = build_loss(name, head=head)
    values = [loss(right(target, head, scale), target).item() for scale in (-3, -1, 0, 1, 3)]
    assert values == sorted(values, reverse=True)
    assert len(set(values)) == len(values)
    assert min(values) > 0


@every_loss
@both_shapes
@pytest.mark.parametrize("junk", [0.0, 1e4, float("inf"), float("-inf"), float("nan")])
def test_what_the_network_says_at_ignored_voxels_matters_not_at_all(name, head, size, junk):
    mask, logits = a_mask(size), some_logits(head, size)
    target = ignoring(a_target(head, size), mask)
    loss = build_loss(name, head=head)
    value, gradient = value_and_gradient(loss, logits, target)
    other_value, other_gradient = value_and_gradient(loss, logits.masked_fill(everywhere(mask, logits), junk), target)
    assert torch.equal(value, other_value)
    assert torch.equal(gradient, other_gradient)
    assert (gradient[everywhere(mask, gradient)] == 0).all()
    assert (gradient[~everywhere(mask, gradient)] != 0).any()


@every_loss
@both_shapes
def test_ignored_voxels_cost_the_same_as_voxels_of_weight_zero(name, head, size):
    mask, logits, target = a_mask(size), some_logits(head, size), a_target(head, size)
    loss = build_loss(name, head=head)
    value, gradient = value_and_gradient(loss, logits, ignoring(target, mask))
    weighted_value, weighted_gradient = value_and_gradient(loss, logits, target, (~mask).float())
    torch.testing.assert_close(weighted_value, value)
    torch.testing.assert_close(weighted_gradient, gradient)


@every_loss
@both_shapes
def test_a_patch_of_which_nothing_is_known_costs_nothing(name, head, size):
    target = torch.full_like(a_target(head, size), IGNORE)
    value, gradient = value_and_gradient(build_loss(name, head=head), some_logits(head, size), target)
    assert value == 0
    assert (gradient == 0).all()


@every_loss
@both_shapes
def test_weights_of_zero_everywhere_cost_nothing(name, head, size):
    weight = torch.zeros(2, *size)
    value, gradient = value_and_gradient(
        build_loss(name, head=head), some_logits(head, size), a_target(head, size), weight
    )
    assert value == pytest.approx(0, abs=1e-6)
    assert gradient.isfinite().all()


@every_loss
@both_shapes
@pytest.mark.parametrize("side", [1e4, -1e4])
def test_extreme_logits_stay_finite(name, head, size, side):
    target = a_target(head, size)
    loss = build_loss(name, head=head)
    logits = torch.sign(some_logits(head, size)) * side
    for cased in (logits, torch.full_like(logits, side), right(target, head, side)):
        value, gradient = value_and_gradient(loss, cased, target)
        assert value.isfinite()
        assert gradient.isfinite().all()


@every_loss
@pytest.mark.parametrize("kind", [0, 1])
def test_targets_of_one_kind_only_stay_finite(name, head, kind):
    target = torch.full_like(a_target(head, (4, 4)), kind)
    value, gradient = value_and_gradient(build_loss(name, head=head), some_logits(head, (4, 4)), target)
    assert value.isfinite()
    assert gradient.isfinite().all()


@every_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_are_summed_in_float32_even_under_autocast(name, head, dtype):
    size = (48, 48, 48)  # sums over it overflow float16
    target, logits = a_target(head, size, count=1), some_logits(head, size, count=1, dtype=dtype)
    loss = build_loss(name, head=head)
    with torch.autocast("cpu", torch.bfloat16):
        value, gradient = value_and_gradient(loss, logits, target)
    assert value.dtype == torch.float32
    assert gradient.dtype == dtype
    assert gradient.isfinite().all()
    torch.testing.assert_close(value, loss(logits.float(), target))


@every_loss
@both_shapes
def test_the_gradient_is_that_of_the_value(name, head, size):
    size = tuple(min(n, 3) for n in size)
    loss, target = build_loss(name, head=head), a_target(head, size, count=1)
    mask, weight = a_mask(size, 1), torch.rand(1, *size, dtype=torch.float64)
    logits = some_logits(head, size, count=1, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: loss(x, ignoring(target, mask), weight), logits)


@pytest.mark.parametrize(("name", "head"), [pair for pair in PAIRS if pair[1] != "binary"])
@both_shapes
def test_the_order_of_the_classes_does_not_matter(name, head, size):
    order = [2, 0, 1]
    logits, target = some_logits(head, size, dtype=torch.float64), a_target(head, size)
    shuffled = target[:, order] if head == "multilabel" else torch.tensor([order.index(k) for k in range(3)])[target]
    loss = build_loss(name, head=head)
    torch.testing.assert_close(loss(logits[:, order], shuffled), loss(logits, target))


@every_loss
@both_shapes
def test_a_batch_of_one_has_a_loss(name, head, size):
    value, gradient = value_and_gradient(
        build_loss(name, head=head), some_logits(head, size, count=1), a_target(head, size, count=1)
    )
    assert value > 0
    assert gradient.abs().sum() > 0


@every_loss
def test_a_plane_costs_the_same_as_a_volume_of_one_slice(name, head):
    logits, target = some_logits(head, (5, 6)), a_target(head, (5, 6))
    loss = build_loss(name, head=head)
    torch.testing.assert_close(loss(logits.unsqueeze(2), target.unsqueeze(-3)), loss(logits, target))


@every_loss
@both_shapes
def test_mirroring_changes_nothing(name, head, size):
    logits, target = some_logits(head, size, dtype=torch.float64), a_target(head, size)
    loss = build_loss(name, head=head)
    torch.testing.assert_close(loss(logits.flip(-1), target.flip(-1)), loss(logits, target))


@pytest.mark.parametrize(("name", "head"), [pair for pair in PAIRS if pair[1] != "multilabel"])
@both_shapes
def test_class_indices_cost_the_same_as_a_channel_for_each_class(name, head, size):
    logits, target = some_logits(head, size), a_target(head, size)
    loss = build_loss(name, head=head)
    torch.testing.assert_close(loss(logits, truth(target, head).float()), loss(logits, target))


@every_loss
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64, torch.float32])
def test_the_number_type_of_the_target_does_not_matter(name, head, dtype):
    target = ignoring(a_target(head, (5, 6)), a_mask((5, 6)))
    logits, loss = some_logits(head, (5, 6)), build_loss(name, head=head)
    assert torch.equal(loss(logits, target.to(dtype)), loss(logits, target))


@every_loss
def test_soft_targets_are_taken(name, head):
    soft = torch.rand(2, CHANNELS[head], 5, 6, generator=torch.Generator().manual_seed(3))
    soft = soft / soft.sum(1, keepdim=True) if head == "multiclass" else soft
    value, gradient = value_and_gradient(build_loss(name, head=head), some_logits(head, (5, 6)), soft)
    assert value >= 0
    assert gradient.isfinite().all()


@pytest.mark.parametrize(
    ("name", "other", "head"),
    [(name, other, head) for name, head in PAIRS for other in LOSSES if (other, head) in PAIRS],
)
def test_a_weighted_sum_costs_the_sum_of_its_parts(name, other, head):
    logits, target = some_logits(head, (5, 6)), a_target(head, (5, 6))
    one, two = (build_loss(part, head=head)(logits, target) for part in (name, other))
    torch.testing.assert_close(build_loss(f"2*{name} + 0.25*{other}", head=head)(logits, target), 2 * one + 0.25 * two)


@pytest.mark.parametrize("head", CHANNELS)
@pytest.mark.parametrize("name", LOSSES)
def test_a_head_that_does_not_fit_is_refused_with_losses_that_do(name, head):
    if (name, head) in PAIRS:
        build_loss(name, head=head)
        return
    with pytest.raises(SettingsProblem, match=rf"{name} does not fit a {head} head.*\.$") as caught:
        build_loss(name, head=head)
    for fitting in str(caught.value).partition("one of ")[2].rstrip(".").split(", "):
        build_loss(fitting, head=head)


@every_loss
def test_a_target_of_another_shape_is_refused(name, head):
    with pytest.raises(DataProblem, match=r"\(2, 5, 7\) does not fit .*\.$"):
        build_loss(name, head=head)(some_logits(head, (5, 6)), torch.zeros(2, 5, 7))
