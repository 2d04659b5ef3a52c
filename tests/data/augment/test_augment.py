"""Augmentation must move an image and its labels together and leave the labels right."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from combinations import in_one_case, pairs

from napari_unetvnet.conventions import IGNORE
from napari_unetvnet.data.augment import RECIPES, Change, Recipe, augment, preview, recipe, warp
from napari_unetvnet.data.targets import TARGET_MAPS, TargetMap

# View, size of the target, margin, spacing.
KINDS = {
    "2d": ("2d", (1, 24, 32), (0, 4, 4), (1, 1, 1)),
    "2.5d": ("2.5d", (1, 32, 32), (2, 0, 0), (3, 1, 1)),
    "3d": ("3d", (16, 16, 16), (2, 2, 2), (1, 1, 1)),
    "coarse planes": ("3d", (6, 24, 24), (0, 0, 0), (5, 1, 1)),
    "long pixels": ("2d", (1, 8, 40), (0, 0, 2), (1, 5, 1)),
    "coarse columns": ("3d", (12, 16, 8), (0, 2, 1), (1, 1, 4)),
}
WEIGHT = next(name for name, row in TARGET_MAPS.items() if row.use == "weight")
LIGHT = recipe("light", view="2d", spacing=(1, 1, 1), mirror=("y", "x"), patch=(1, 8, 8))


def fitted(kind, name, mirror="zyx"):
    view, size, _, spacing = KINDS[kind]
    return recipe(name, view=view, spacing=spacing, mirror=mirror, patch=size)


def patches(kind, count=6, channels=2, seed=0):
    _, size, margin, _ = KINDS[kind]
    generator = torch.Generator().manual_seed(seed)
    whole = [n + 2 * m for n, m in zip(size, margin, strict=True)]
    images = torch.randn(count, channels, *whole, generator=generator)
    target = torch.randint(0, 3, (count, *size), generator=generator, dtype=torch.uint8)
    target[:, :, :5] = IGNORE
    return images, target, {WEIGHT: torch.rand(count, *size, generator=generator) + 0.5}


def spatial(fit):
    """The recipe without its changes of intensity."""
    names = ("mirror", "exchange", "moving", "spacing", "shift", "rotation", "scale", "elastic")
    return Recipe(**{name: getattr(fit, name) for name in names})


def tensors(images, target, maps):
    return images, target, *maps.values()


def numbered(count=8, size=(3, 4, 5), margin=(0, 0, 0)):
    """Patches whose voxels hold their own number, with the same number as the label inside of the margin."""
    whole = [n + 2 * m for n, m in zip(size, margin, strict=True)]
    numbers = torch.arange(float(np.prod(whole))).reshape(whole)
    inner = numbers[tuple(slice(m, m + n) for n, m in zip(size, margin, strict=True))]
    images = torch.stack([numbers, numbers + 1000]).expand(count, 2, *whole).clone()
    return images, inner.expand(count, *size).clone()


@in_one_case("name", RECIPES)
@in_one_case("kind", KINDS)
def test_labels_and_weights_are_never_invented(kind, name):
    images, target, maps = patches(kind)
    given = images, target, maps[WEIGHT]
    kept = [part.clone() for part in given]
    *changed, maps = augment(images, target, maps, np.random.default_rng(0), fitted(kind, name))
    changed.append(maps[WEIGHT])
    for before, after in zip(kept, changed, strict=True):
        assert (after.shape, after.dtype) == (before.shape, before.dtype)
        assert not after.requires_grad
    assert changed[0].isfinite().all()
    for before, after in zip(target, changed[1], strict=True):
        assert set(after.unique().tolist()) <= {*before.unique().tolist(), IGNORE}
    for before, after in zip(kept[2], changed[2], strict=True):
        assert set(after.unique().tolist()) <= {*before.unique().tolist(), 0.0}
    assert all(torch.equal(a, b) for a, b in zip(kept, given, strict=True))


@in_one_case("name", RECIPES)
@in_one_case("kind", KINDS)
def test_image_and_labels_move_about_the_same_centre(kind, name, monkeypatch):
    sample = warp.functional.grid_sample
    monkeypatch.setattr(
        warp.functional, "grid_sample", lambda *args, **options: sample(*args, **options | {"mode": "nearest"})
    )
    _, size, margin, _ = KINDS[kind]
    images, target = numbered(size=size, margin=margin)
    moved, labels, _ = augment(images, target, {}, np.random.default_rng(1), spatial(fitted(kind, name)))
    inner = moved[(slice(None), 0, *(slice(m, m + n) for n, m in zip(size, margin, strict=True)))]
    known = labels != IGNORE
    assert known.float().mean() > 0.5
    # A place half-way between two voxels may fall to the one or the other.
    assert (inner == labels)[known].float().mean() > 0.998
    assert torch.equal(moved[:, 1], moved[:, 0] + 1000)


@in_one_case("name", RECIPES)
@in_one_case("kind", KINDS)
def test_the_same_chance_gives_the_same_patches(kind, name):
    batch = patches(kind)
    first, again, other = (
        tensors(*augment(*batch, np.random.default_rng(seed), fitted(kind, name))) for seed in (4, 4, 5)
    )
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert name == "none" or not torch.equal(first[0], other[0])


@in_one_case("name", sorted(set(RECIPES) - {"none"}))
def test_without_strength_there_is_mirroring_only(name):
    images, target = numbered(count=64, size=(4, 4, 4))
    fit = recipe(name, view="3d", spacing=(1, 1, 1), mirror=("z", "x"), patch=(4, 4, 4))
    _, labels, _ = augment(images, target, {}, np.random.default_rng(0), fit, strength=0)
    axes = [(), (-1,)] if name == "light" else [(), (-1,), (-3,), (-3, -1)]
    for patch in labels:
        assert any(torch.equal(patch, target[0].flip(chosen)) for chosen in axes)
    assert len({tuple(patch.flatten().tolist()) for patch in labels}) == len(axes)


def test_strength_makes_more_and_larger_changes():
    images, target, _ = patches("2d", count=200, channels=1)
    fit = fitted("2d", "standard", mirror=())
    apart = [
        (augment(images, target, {}, np.random.default_rng(0), fit, strength)[0] - images).abs().flatten(1).mean(1)
        for strength in (0.0, 0.5, 1.0)
    ]
    assert apart[0].max() == 0
    assert apart[0].mean() < apart[1].mean() < apart[2].mean()
    assert (apart[1] > 0).sum() < (apart[2] > 0).sum()


@in_one_case("name", RECIPES)
def test_intensities_stay_what_they_are_on_average(name):
    rough, target, _ = patches("3d", count=100)
    images = torch.nn.functional.interpolate(rough[..., ::5, ::5, ::5], size=rough.shape[2:], mode="trilinear")
    images = (images - images.mean()) / images.std()
    changed, _, _ = augment(images, target, {}, np.random.default_rng(0), fitted("3d", name))
    assert changed.mean().item() == pytest.approx(0, abs=0.05)
    assert changed.std().item() == pytest.approx(1, abs=0.15)
    assert changed.abs().max() < 12


def test_nothing_is_done_by_the_recipe_none():
    batch = patches("2d")
    assert all(a is b for a, b in zip(batch, augment(*batch, np.random.default_rng(0), Recipe()), strict=True))


def test_patches_that_are_not_chosen_keep_their_values():
    images, target, maps = patches("3d", count=40)
    changed = augment(images, target, maps, np.random.default_rng(0), Recipe(rotation=Change(0.5, -30, 30)))
    same = [torch.equal(a, b) for a, b in zip(images, changed[0], strict=True)]
    assert 10 < sum(same) < 30
    for i in np.flatnonzero(same):
        assert torch.equal(target[i], changed[1][i])
        assert torch.equal(maps[WEIGHT][i], changed[2][WEIGHT][i])


@in_one_case("margin", [(0, 0, 0), (1, 2, 2)])
@in_one_case("mirror", [("y", "x"), ("z", "y", "x"), ("x",), ()])
def test_only_the_chosen_axes_are_mirrored(margin, mirror):
    images, target = numbered(count=100, margin=margin)
    maps = {WEIGHT: target + 0.5}
    flipped, labels, maps = augment(images, target, maps, np.random.default_rng(0), Recipe(mirror=mirror))
    z, y, x = (slice(m, m + n) for n, m in zip(target.shape[1:], margin, strict=True))
    assert torch.equal(flipped[:, 0, z, y, x], labels)
    assert torch.equal(maps[WEIGHT], labels + 0.5)
    different = {tuple(patch.flatten().tolist()) for patch in labels}
    assert len(different) == 2 ** len(mirror)
    axes = ["zyx".index(axis) for axis in "zyx" if axis not in mirror]
    still = target[0].amax(tuple(set(range(3)) - set(axes))) if axes and len(axes) < 3 else None
    if still is not None:
        for patch in labels:
            assert torch.equal(patch.amax(tuple(set(range(3)) - set(axes))), still)


def test_soft_targets_with_channels_are_moved_with_the_image():
    images, target = numbered(count=32, size=(1, 8, 8))
    soft = torch.stack([target, target + 0.25], dim=1)
    soft[:, 1, :, 2:4] = IGNORE
    moved, labels, _ = augment(
        images, soft, {}, np.random.default_rng(0), Recipe(("y", "x"), rotation=Change(0.5, -30, 30))
    )
    assert set(labels.unique().tolist()) <= {*soft.unique().tolist(), float(IGNORE)}
    straight = (labels != IGNORE).flatten(1).sum(1) == (soft != IGNORE).flatten(1).sum(1)
    assert torch.equal(labels[straight, 0], moved[straight, 0])


def test_one_patch_is_enough():
    for kind in KINDS:
        images, target, maps = patches(kind, count=1, channels=1)
        augment(images, target, maps, np.random.default_rng(0), fitted(kind, "strong"))


def test_by_default_brightness_and_offset_change_by_about_a_tenth_for_each_patch_and_channel():
    ends = torch.tensor([0.0, 1.0]).reshape(1, 1, 1, 1, 2).expand(2000, 2, 1, 1, 2)
    images, _, _ = augment(ends, torch.zeros(2000, 1, 1, 2), {}, np.random.default_rng(0), Recipe(**RECIPES["light"]))
    offset, gain = images[..., 0], images[..., 1] - images[..., 0]
    assert offset.mean().item() == pytest.approx(0, abs=0.01)
    assert offset.std().item() == pytest.approx(0.1, abs=0.01)
    assert gain.mean().item() == pytest.approx(1, abs=0.01)
    assert gain.std().item() == pytest.approx(0.1, abs=0.01)
    assert abs(torch.corrcoef(offset[:, :, 0, 0].T)[0, 1].item()) < 0.1


def test_light_is_the_default_and_draws_as_it_always_did():
    images, target, maps = patches("2d")
    changed = tensors(*augment(images, target, maps, np.random.default_rng(7)))
    light = tensors(*augment(images, target, maps, np.random.default_rng(7), LIGHT))
    assert all(torch.equal(a, b) for a, b in zip(changed, light, strict=True))
    rng = np.random.default_rng(7)
    flips = rng.random((6, 2)) < 0.5
    gain, offset = (torch.from_numpy(rng.normal(mean, 0.1, (6, 2, 1, 1, 1))).float() for mean in (1, 0))
    for i, row in enumerate(flips):
        axes = [axis for axis, flip in zip((-2, -1), row, strict=True) if flip]
        assert torch.equal(changed[0][i], images[i].flip(axes) * gain[i] + offset[i])
        assert torch.equal(changed[1][i], target[i].flip(axes))


def test_a_preview_shows_what_training_sees():
    images, target, _ = patches("2d", count=1)
    fit = fitted("2d", "standard")
    shown, labels = preview(images[0], target[0], fit, 3, 5)
    assert shown.shape == (5, *images[0].shape)
    seen = augment(images.expand(5, -1, -1, -1, -1), target.expand(5, -1, -1, -1), {}, np.random.default_rng(3), fit)
    assert torch.equal(shown, seen[0])
    assert torch.equal(labels, seen[1])


@pytest.fixture
def a_map(monkeypatch):
    """Puts a row into the table and gives its name."""

    def add(**chosen):
        monkeypatch.setitem(TARGET_MAPS, "toy", TargetMap(help="A toy.", function="nowhere:nothing", **chosen))
        return "toy"

    return add


@pytest.mark.parametrize("kind", KINDS)
def test_a_map_is_as_its_row_says_beyond_the_patch(kind, a_map):
    name = a_map(outside=7.0)
    images, target, _ = patches(kind)
    maps = {name: torch.ones(target.shape)}
    target[target == IGNORE] = 0
    fit = replace(fitted(kind, "strong"), shift=Change(1, -0.2, 0.2), mirror=())
    _, labels, maps = augment(images, target, maps, np.random.default_rng(0), fit)
    assert (labels == IGNORE).any()
    assert torch.equal(maps[name] == 7, labels == IGNORE)
    assert torch.equal(maps[name] == 1, labels != IGNORE)


@pytest.mark.parametrize("kind", KINDS)
def test_a_linear_map_is_interpolated_as_its_image(kind, a_map):
    name = a_map(interpolation="linear")
    _, size, margin, _ = KINDS[kind]
    images, target = numbered(size=size, margin=margin)
    fit = spatial(fitted(kind, "strong"))
    moved, labels, maps = augment(images, target, {name: target.clone()}, np.random.default_rng(0), fit)
    inside = moved[(slice(None), 0, *(slice(m, m + n) for n, m in zip(size, margin, strict=True)))]
    # What comes from the outer half of the voxels at an edge is interpolated with the margin, which a map has not.
    apart = (maps[name] - inside)[labels != IGNORE].abs()
    assert len(apart) > 0.5 * labels.numel()
    assert (apart < 0.5).float().mean() > 0.9


def test_lengths_grow_with_the_patch(a_map):
    name = a_map(interpolation="linear", lengths=True)
    z, y, x = torch.meshgrid(*[torch.arange(17.0) - 8] * 3, indexing="ij")
    from_the_middle = (z**2 + y**2 + x**2).sqrt().expand(40, 17, 17, 17)
    fit = Recipe(moving=("z", "y", "x"), scale=Change(1, 0.7, 1.4), rotation=Change(0.5, -30, 30))
    images = from_the_middle[:, None]
    moved, labels, maps = augment(
        images, torch.zeros(40, 17, 17, 17), {name: from_the_middle}, np.random.default_rng(0), fit
    )
    ring = (from_the_middle > 4) & (from_the_middle < 5.5) & (labels != IGNORE)  # interpolation blunts the middle
    torch.testing.assert_close(maps[name][ring], from_the_middle[ring], rtol=0.03, atol=0)
    assert not torch.allclose(moved[:, 0][ring], from_the_middle[ring], rtol=0.2)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_all_stays_on_the_gpu():
    for kind, name in pairs(KINDS, RECIPES):
        images, target, maps = patches(kind)
        batch = images.cuda(), target.cuda(), {name: values.cuda() for name, values in maps.items()}
        changed = tensors(*augment(*batch, np.random.default_rng(0), fitted(kind, name)))
        assert all(part.is_cuda for part in changed)
