"""What every member of the loss table must do; a new member is held to it without an edit here.

A case is one property of one loss: it goes through all heads that the loss fits, each beside every size and every
other value that the property asks for, though not beside all of them at once.
"""

from __future__ import annotations

import re

import pytest
import torch
from combinations import in_one_case, pairs

from napari_unetvnet.conventions import IGNORE
from napari_unetvnet.data.targets import TARGET_MAPS
from napari_unetvnet.errors import DataProblem, SettingsProblem
from napari_unetvnet.losses import LOSSES, build_loss
from napari_unetvnet.networks import NETWORKS

CHANNELS = {"binary": 1, "multiclass": 3, "multilabel": 3}
SIZES = [(5, 6), (3, 4, 5)]
FACTS = {name: LOSSES.describe(name).facts for name in LOSSES}
PAIRS = [(name, head) for name in LOSSES for head in FACTS[name]["head_modes"]]
INDICES = ["binary", "multiclass"]  # one class a voxel
JUNK = [0.0, 1.0, 77.0, float("inf"), float("-inf"), float("nan")]
# Losses with no class weights of their own.
FROM_OUTSIDE = [name for name in LOSSES if "class_weights" not in LOSSES.describe(name).defaults]


def every_loss(heads=tuple(CHANNELS), names=tuple(LOSSES), together=False, **others):
    """Hold each loss to a test: a case a loss, with its heads and the values of other arguments in pairs.

    ``together`` makes one case of all losses: for what the code does that they share.
    """
    fitting = {name: [head for head in FACTS[name]["head_modes"] if head in heads] for name in names}

    def decorate(test):
        looped = in_one_case(", ".join(("head", *others)), lambda name: pairs(fitting[name], *others.values()))
        each = in_one_case if together else pytest.mark.parametrize
        return each("name", [name for name in fitting if fitting[name]])(looped(test))

    return decorate


def a_target(head, size, *, count=2, channels=3, absent=False, seed=0):
    """Class indices (B, *S), or for several labels a voxel (B, K, *S); if ``absent``, the last class is nowhere."""
    generator = torch.Generator().manual_seed(seed)
    if head == "multilabel":
        target = torch.randint(0, 2, (count, channels, *size), generator=generator)
        target[:, -1] *= not absent
        return target
    classes = 2 if head == "binary" else channels
    return torch.randint(0, classes - absent, (count, *size), generator=generator)


def truth(target, head):
    """The target with a channel for each class, (B, K, *S)."""
    if head == "multilabel":
        return target.double()
    return torch.stack([target == k for k in ([1] if head == "binary" else range(3))], dim=1).double()


def right(target, head, scale):
    """Logits that say the truth."""
    return ((2 * truth(target, head) - 1) * scale).float()


def some_logits(head, size, *, count=2, channels=None, seed=1, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    shape = (count, channels or CHANNELS[head], *size)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def a_mask(size, count=2):
    """True at about a third of the voxels, (B, *S)."""
    return torch.rand(count, *size, generator=torch.Generator().manual_seed(2)) < 0.35


def everywhere(mask, like):
    """A voxel mask (B, *S) for all channels of an array, if it has some."""
    return mask if mask.ndim == like.ndim else mask.unsqueeze(1).expand_as(like)


def ignoring(target, mask):
    return target.masked_fill(everywhere(mask, target), IGNORE)


def an_order(name, channels=5):
    """A new order of the classes that leaves those at the ends in place which the loss gives a role."""
    count = len(FACTS[name].get("roles", ()))
    first, last = min(count, 1), channels - (count > 2)
    middle = list(range(first, last))
    return [*range(first), *middle[2:], *middle[:2], *range(last, channels)]


def reordered(target, head, order):
    """The target after its classes are put in another order."""
    if head == "multilabel":
        return target[:, order]
    return torch.tensor([order.index(k) for k in range(len(order))])[target]


def scales(name):
    """How right a prediction is, from worst to best; without inverted ones for a loss that cannot see inversion."""
    return (0, 1, 3) if "inversion" in FACTS[name].get("blind_to", ()) else (-3, -1, 0, 1, 3)


def value_and_gradient(loss, logits, *rest):
    logits = logits.clone().requires_grad_()
    value = loss(logits, *rest)
    value.backward()
    assert value.ndim == 0
    return value.detach(), logits.grad


def same_value_and_gradient(loss, one, other):
    """Hold two calls to the same answer and give the gradient."""
    (value, gradient), (other_value, other_gradient) = (value_and_gradient(loss, *given) for given in (one, other))
    assert torch.equal(value, other_value)
    assert torch.equal(gradient, other_gradient)
    return gradient


def test_every_need_is_a_map_of_the_labels_or_an_output_of_a_network():
    outputs = {name for network in NETWORKS for name, _ in NETWORKS.describe(network).facts.get("gives", ())}
    needs = {need for name in LOSSES for need in FACTS[name].get("needs", ())}
    assert needs <= {*TARGET_MAPS, *outputs}
    assert outputs.isdisjoint(TARGET_MAPS)


@every_loss(size=SIZES, weighted=[False, True], absent=[False, True])
def test_a_perfect_prediction_costs_nothing(name, head, size, weighted, absent):
    target, weights = a_target(head, size, absent=absent), weights_of(head) if weighted else ()
    assert build_loss(name, head=head, class_weights=weights)(right(target, head, 50), target).item() == pytest.approx(
        0, abs=1e-5
    )


@every_loss(size=SIZES, weighted=[False, True])
def test_costs_more_the_worse_the_prediction(name, head, size, weighted):
    target = a_target(head, size)
    loss = build_loss(name, head=head, class_weights=weights_of(head) if weighted else ())
    values = [loss(right(target, head, scale), target).item() for scale in scales(name)]
    assert values == sorted(values, reverse=True)
    assert len(set(values)) == len(values)
    assert min(values) > 0


@every_loss(size=SIZES, junk=JUNK)
def test_what_the_network_says_at_ignored_voxels_matters_not_at_all(name, head, size, junk):
    mask, logits = a_mask(size), some_logits(head, size)
    target = ignoring(a_target(head, size), mask)
    loss = build_loss(name, head=head)
    other = logits.masked_fill(everywhere(mask, logits), junk)
    gradient = same_value_and_gradient(loss, (logits, target), (other, target))
    assert (gradient[everywhere(mask, gradient)] == 0).all()
    assert (gradient[~everywhere(mask, gradient)] != 0).any()


@every_loss(size=SIZES)
def test_ignored_voxels_cost_the_same_as_voxels_of_weight_zero(name, head, size):
    mask, logits, target = a_mask(size), some_logits(head, size), a_target(head, size)
    loss = build_loss(name, head=head)
    value, gradient = value_and_gradient(loss, logits, ignoring(target, mask))
    weighted_value, weighted_gradient = value_and_gradient(loss, logits, target, (~mask).float())
    torch.testing.assert_close(weighted_value, value)
    torch.testing.assert_close(weighted_gradient, gradient)


@every_loss(size=SIZES, junk=JUNK)
def test_weights_at_ignored_voxels_matter_not_at_all(name, head, size, junk):
    mask, logits, weight = a_mask(size), some_logits(head, size), torch.rand(2, *size)
    target, loss = ignoring(a_target(head, size), mask), build_loss(name, head=head)
    same_value_and_gradient(loss, (logits, target, weight), (logits, target, weight.masked_fill(mask, junk)))


@every_loss(size=SIZES, junk=JUNK)
def test_labels_and_logits_at_voxels_of_weight_zero_matter_not_at_all(name, head, size, junk):
    mask, logits, target = a_mask(size), some_logits(head, size), a_target(head, size).float()
    weight, loss = torch.rand(2, *size).masked_fill(mask, 0), build_loss(name, head=head)
    other = (array.masked_fill(everywhere(mask, array), junk) for array in (logits, target))
    gradient = same_value_and_gradient(loss, (logits, target, weight), (*other, weight))
    assert (gradient[everywhere(mask, gradient)] == 0).all()


@every_loss(heads=["multiclass"], junk=JUNK)
def test_the_other_channels_of_a_softmax_voxel_with_one_unknown_matter_not_at_all(name, head, junk):
    size = SIZES[0]
    mask, logits = a_mask(size), some_logits(head, size)
    target, loss = truth(a_target(head, size), head).float(), build_loss(name, head=head)
    target[:, 1].masked_fill_(mask, IGNORE)
    other = target.clone()
    other[:, [0, 2]] = target[:, [0, 2]].masked_fill(mask.unsqueeze(1), junk)
    same_value_and_gradient(loss, (logits, target), (logits, other))
    torch.testing.assert_close(loss(logits, target), loss(logits, ignoring(a_target(head, size), mask)))


@every_loss(size=SIZES)
def test_a_patch_of_which_nothing_is_known_costs_nothing(name, head, size):
    target = torch.full_like(a_target(head, size), IGNORE)
    value, gradient = value_and_gradient(build_loss(name, head=head), some_logits(head, size), target)
    assert value == 0
    assert (gradient == 0).all()


@every_loss(size=SIZES)
def test_weights_of_zero_everywhere_cost_nothing(name, head, size):
    weight = torch.zeros(2, *size)
    value, gradient = value_and_gradient(
        build_loss(name, head=head), some_logits(head, size), a_target(head, size), weight
    )
    assert value == pytest.approx(0, abs=1e-6)
    assert gradient.isfinite().all()


@every_loss(size=SIZES, side=[1e4, -1e4])
def test_extreme_logits_stay_finite(name, head, size, side):
    target = a_target(head, size)
    loss = build_loss(name, head=head)
    logits = torch.sign(some_logits(head, size)) * side
    for cased in (logits, torch.full_like(logits, side), right(target, head, side)):
        value, gradient = value_and_gradient(loss, cased, target)
        assert value.isfinite()
        assert gradient.isfinite().all()


@every_loss(kind=[0, 1])
def test_targets_of_one_kind_only_stay_finite(name, head, kind):
    target = torch.full_like(a_target(head, (4, 4)), kind)
    value, gradient = value_and_gradient(build_loss(name, head=head), some_logits(head, (4, 4)), target)
    assert value.isfinite()
    assert gradient.isfinite().all()


@every_loss(dtype=[torch.float16, torch.bfloat16], together=True)
def test_half_precision_logits_are_computed_in_float32_even_under_autocast(name, head, dtype):
    target, logits = a_target(head, (5, 6)), some_logits(head, (5, 6), dtype=dtype)
    loss = build_loss(name, head=head)
    with torch.autocast("cpu", dtype):
        value, gradient = value_and_gradient(loss, logits, target)
    assert value.dtype == torch.float32
    assert gradient.dtype == dtype
    assert gradient.isfinite().all()
    assert torch.equal(value, loss(logits.float(), target))


@pytest.mark.parametrize("name", LOSSES)
def test_sums_over_a_patch_too_large_for_float16_are_right(name):
    size, head = (48, 48, 48), FACTS[name]["head_modes"][0]
    target, logits = a_target(head, size, count=1), some_logits(head, size, count=1, dtype=torch.float16)
    loss = build_loss(name, head=head)
    with torch.autocast("cpu", torch.float16):
        value, gradient = value_and_gradient(loss, logits, target)
    assert gradient.isfinite().all()
    torch.testing.assert_close(value.double(), loss(logits.double(), target), rtol=1e-4, atol=1e-6)


@every_loss(size=SIZES)
def test_the_gradient_is_that_of_the_value(name, head, size):
    size = tuple(min(n, 3) for n in size)
    loss, target = build_loss(name, head=head), a_target(head, size, count=1)
    mask, weight = a_mask(size, 1), torch.rand(1, *size, dtype=torch.float64)
    logits = some_logits(head, size, count=1, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: loss(x, ignoring(target, mask), weight), logits)


@every_loss(heads=["multiclass", "multilabel"], size=SIZES)
def test_the_order_of_the_classes_does_not_matter(name, head, size):
    order = an_order(name)
    logits = some_logits(head, size, channels=5, dtype=torch.float64)
    target, loss = a_target(head, size, channels=5), build_loss(name, head=head)
    torch.testing.assert_close(loss(logits[:, order], reordered(target, head, order)), loss(logits, target))


@every_loss(heads=["multiclass", "multilabel"])
def test_class_weights_belong_to_classes_in_whatever_order(name, head):
    order, weights = an_order(name), [0.5, 2.0, 1.0, 3.0, 0.25]
    logits = some_logits(head, (5, 6), channels=5, dtype=torch.float64)
    target = ignoring(a_target(head, (5, 6), channels=5), a_mask((5, 6)))
    moved = target[:, order] if head == "multilabel" else reordered(target.clamp_max(4), head, order)
    loss = build_loss(name, head=head, class_weights=weights)
    other = build_loss(name, head=head, class_weights=[weights[k] for k in order])
    torch.testing.assert_close(
        other(logits[:, order], moved.masked_fill(target == IGNORE, IGNORE)), loss(logits, target)
    )


def weights_of(head, weight=None):
    """Class weights that differ, or all the same."""
    count = 2 if head == "binary" else CHANNELS[head]
    return [1 + k if weight is None else weight for k in range(count)]


@every_loss(names=FROM_OUTSIDE, size=SIZES)
def test_class_weights_of_one_change_nothing(name, head, size):
    logits, target = some_logits(head, size), ignoring(a_target(head, size), a_mask(size))
    plain, weighted = (build_loss(name, head=head, class_weights=given) for given in ((), weights_of(head, 1.0)))
    torch.testing.assert_close(value_and_gradient(weighted, logits, target), value_and_gradient(plain, logits, target))


@every_loss(heads=INDICES, names=FROM_OUTSIDE)
def test_a_class_weight_is_the_weight_of_its_voxels(name, head):
    logits, target = some_logits(head, (5, 6)), a_target(head, (5, 6))
    weights = weights_of(head)
    weighted = build_loss(name, head=head)(logits, target, torch.tensor(weights)[target].float())
    torch.testing.assert_close(build_loss(name, head=head, class_weights=weights)(logits, target), weighted)


@every_loss(size=SIZES)
def test_a_batch_of_one_has_a_loss(name, head, size):
    value, gradient = value_and_gradient(
        build_loss(name, head=head), some_logits(head, size, count=1), a_target(head, size, count=1)
    )
    assert value > 0
    assert gradient.abs().sum() > 0


@every_loss()
def test_a_plane_costs_the_same_as_a_volume_of_one_slice(name, head):
    logits, target = some_logits(head, (5, 6)), a_target(head, (5, 6))
    loss = build_loss(name, head=head)
    torch.testing.assert_close(loss(logits.unsqueeze(2), target.unsqueeze(-3)), loss(logits, target))


@every_loss(size=SIZES)
def test_mirroring_changes_nothing(name, head, size):
    logits, target = some_logits(head, size, dtype=torch.float64), a_target(head, size)
    loss = build_loss(name, head=head)
    torch.testing.assert_close(loss(logits.flip(-1), target.flip(-1)), loss(logits, target))


@every_loss(heads=INDICES, size=SIZES, together=True)
def test_class_indices_cost_the_same_as_a_channel_for_each_class(name, head, size):
    logits, target = some_logits(head, size), a_target(head, size)
    loss = build_loss(name, head=head)
    torch.testing.assert_close(loss(logits, truth(target, head).float()), loss(logits, target))


@every_loss(dtype=[torch.uint8, torch.int16, torch.int64, torch.float32], together=True)
def test_the_number_type_of_the_target_does_not_matter(name, head, dtype):
    target = ignoring(a_target(head, (5, 6)), a_mask((5, 6)))
    logits, loss = some_logits(head, (5, 6)), build_loss(name, head=head)
    assert torch.equal(loss(logits, target.to(dtype)), loss(logits, target))


@every_loss()
def test_soft_targets_are_taken(name, head):
    soft = torch.rand(2, CHANNELS[head], 5, 6, generator=torch.Generator().manual_seed(3))
    soft = soft / soft.sum(1, keepdim=True) if head == "multiclass" else soft
    value, gradient = value_and_gradient(build_loss(name, head=head), some_logits(head, (5, 6)), soft)
    assert value >= 0
    assert gradient.isfinite().all()


@every_loss(together=True)
def test_a_weighted_sum_costs_the_sum_of_its_parts(name, head):
    fitting = [other for other, its_head in PAIRS if its_head == head]
    other = fitting[fitting.index(name) - 1]
    logits, target = some_logits(head, (5, 6)), a_target(head, (5, 6))
    one, two = (build_loss(part, head=head)(logits, target) for part in (name, other))
    torch.testing.assert_close(build_loss(f"2*{name} + 0.25*{other}", head=head)(logits, target), 2 * one + 0.25 * two)


@pytest.mark.parametrize("head", CHANNELS)
def test_all_losses_of_a_head_can_be_summed(head):
    fitting = [name for name, its_head in PAIRS if its_head == head]
    logits, target = some_logits(head, (5, 6)), a_target(head, (5, 6))
    parts = sum(build_loss(name, head=head)(logits, target) for name in fitting)
    torch.testing.assert_close(build_loss(" + ".join(fitting), head=head)(logits, target), parts)


@in_one_case("name", LOSSES)
def test_every_loss_tells_its_formula_its_source_and_its_options(name):
    told = LOSSES.describe(name)
    assert re.search(r"[=Σ^+]", told.section("Notes"))
    assert re.search(r"https://\S+", told.section("References"))
    assert all(option.help.endswith(".") and option.default is not None for option in told.options)
    assert told.summary.endswith(".")


@in_one_case("head", list(CHANNELS))
@in_one_case("name", LOSSES)
def test_a_head_that_does_not_fit_is_refused_with_losses_that_do(name, head):
    if (name, head) in PAIRS:
        build_loss(name, head=head)
        return
    with pytest.raises(SettingsProblem, match=rf"{name} does not fit a {head} head.*\.$") as caught:
        build_loss(name, head=head)
    for fitting in str(caught.value).partition("one of ")[2].rstrip(".").split(", "):
        build_loss(fitting, head=head)


@every_loss(together=True)
def test_a_target_of_another_shape_is_refused(name, head):
    with pytest.raises(DataProblem, match=r"\(2, 5, 7\) does not fit .*\.$"):
        build_loss(name, head=head)(some_logits(head, (5, 6)), torch.zeros(2, 5, 7))
