"""The autograd functions of the losses: in slabs, in one go and by plain autograd they compute the same."""

from __future__ import annotations

import pytest
import torch
from combinations import in_one_case, pairs

from napari_unetvnet.conventions import IGNORE
from napari_unetvnet.losses import LOSSES, build_loss, slabs
from napari_unetvnet.losses.autograd import PLAIN_LOSSES

HEADS = {name: LOSSES.describe(name).facts["head_modes"] for name in LOSSES}


def a_case(head, size):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 1 if head == "binary" else 4, *size, generator=generator, dtype=torch.float64)
    shape = logits.shape if head == "multilabel" else (3, *size)
    target = torch.randint(0, 4 if head == "multiclass" else 2, shape, generator=generator)
    unknown = torch.rand(shape, generator=generator) < 0.2
    return logits.requires_grad_(), target.masked_fill(unknown, IGNORE), torch.rand(3, *size, generator=generator)


@pytest.mark.parametrize("name", LOSSES)
@in_one_case("head, size", lambda name, **_: pairs(HEADS[name], [(6, 5), (6, 5, 4)]))
def test_a_patch_in_slabs_costs_what_it_costs_in_one(name, head, size, monkeypatch):
    logits, target, weight = a_case(head, size)
    loss = build_loss(name, head=head)
    for weights in (None, weight):
        answers = []
        for limit in (10**6, 250, 33, 1):  # all, some images, some planes, each plane
            monkeypatch.setattr(slabs, "CPU_SLAB", limit)
            value = loss(logits, target, weights)
            answers.append((value.detach(), *torch.autograd.grad(value, logits)))
        for answer in answers[1:]:
            torch.testing.assert_close(answer, answers[0])


@in_one_case("limit", [250, 33])
@in_one_case("size", [(6, 5), (6, 5, 4)])
def test_slabs_cover_an_array_once(size, limit, monkeypatch):
    monkeypatch.setattr(slabs, "CPU_SLAB", limit)
    covered = torch.zeros(3, 4, *size)
    for part in slabs.slabs(covered):
        covered[part] += 1
    assert (covered == 1).all()


@pytest.mark.parametrize("name", LOSSES)
@in_one_case("head", lambda name, **_: HEADS[name])
def test_plain_autograd_has_the_same_value_and_gradient(name, head, monkeypatch):
    logits, target, weight = a_case(head, (6, 5, 4))
    loss = build_loss(name, head=head)
    monkeypatch.setattr(slabs, "CPU_SLAB", 33)
    for weights in (None, weight):
        answers = []
        for plain in ("0", "1"):
            monkeypatch.setenv(PLAIN_LOSSES, plain)
            value = loss(logits, target, weights)
            answers.append((value.detach(), *torch.autograd.grad(value, logits)))
        torch.testing.assert_close(*answers)


def test_only_plain_losses_can_be_differentiated_twice(monkeypatch):
    logits, target, _ = a_case("multiclass", (6, 5))
    loss = build_loss("dice_ce + clDice + hardness_dice", head="multiclass")
    for plain in ("0", "1"):
        monkeypatch.setenv(PLAIN_LOSSES, plain)
        (gradient,) = torch.autograd.grad(loss(logits, target), logits, create_graph=True)
        if plain == "1":
            gradient.square().sum().backward()
            assert logits.grad.isfinite().all()
        else:
            with pytest.raises(RuntimeError, match="once_differentiable"):
                gradient.square().sum().backward()


@pytest.mark.parametrize("name", ["ce", "dice", "focal"])
def test_a_gradient_can_be_asked_for_twice(name):
    logits, target, _ = a_case("multiclass", (6, 5))
    value = build_loss(name, head="multiclass")(logits, target)
    first = torch.autograd.grad(value, logits, retain_graph=True)
    assert torch.equal(*first, *torch.autograd.grad(value, logits, retain_graph=True))
    torch.testing.assert_close(torch.autograd.grad(3 * value, logits)[0], 3 * first[0])


@pytest.mark.parametrize("name", ["ce", "dice", "focal"])
def test_without_a_gradient_the_value_is_the_same(name):
    logits, target, _ = a_case("multiclass", (6, 5))
    loss = build_loss(name, head="multiclass")
    with torch.no_grad():
        value = loss(logits, target)
    assert not value.requires_grad
    assert torch.equal(value, loss(logits, target).detach())


@in_one_case("weights", [(), (1.0, 2.0, 0.5, 3.0)])
@in_one_case("name", [name for name in LOSSES if "multilabel" in HEADS[name]])
def test_sigmoid_channels_take_class_indices_too(name, weights):
    logits, target, _ = a_case("multiclass", (6, 5))
    known = (target != IGNORE).unsqueeze(1)
    channels = torch.stack([target == k for k in range(4)], 1).long().where(known, IGNORE)
    loss = build_loss(name, head="multilabel", class_weights=weights)
    torch.testing.assert_close(loss(logits, target), loss(logits, channels))
