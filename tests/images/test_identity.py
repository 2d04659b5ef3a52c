"""An image is recognised by its content: other files, number types and chunks make no difference, other values do."""

from __future__ import annotations

import numpy as np
import zarr

from napari_unetvnet.images import identity
from napari_unetvnet.images.identity import content_hash, original_shape
from napari_unetvnet.images.resample import at_spacing
from napari_unetvnet.images.volume import Volume


def test_the_same_values_are_the_same_image_however_they_are_stored(tmp_path, monkeypatch):
    values = np.random.default_rng(0).integers(0, 256, (1, 20, 30, 40)).astype(np.uint8)
    chunked = zarr.create_array(tmp_path / "a.zarr", shape=values.shape, chunks=(1, 7, 16, 16), dtype="uint16")
    chunked[...] = values
    for limit in (identity.MOST_VOXELS, 1000):  # the second time only boxes are read
        monkeypatch.setattr(identity, "MOST_VOXELS", limit)
        monkeypatch.setattr(identity, "BOX", (4, 8, 8))
        expected = content_hash(Volume(values))
        same = [values.astype(kind) for kind in ("int16", "uint32", "float32", "float64")]
        same += [np.asfortranarray(values), values.astype(np.float32) * np.float32(1), chunked]
        assert {content_hash(Volume(data, name="other")) for data in same} == {expected}
        changed = values.copy()
        changed[0, 10, 10, 10] ^= 1
        others = [values[:, ::-1], values[..., :-1], values.reshape(1, 30, 20, 40)]
        others += [changed] if limit > 1000 else []
        assert expected not in {content_hash(Volume(data)) for data in others}


def test_a_resampled_image_is_recognised_by_its_original():
    volume = Volume(np.random.default_rng(0).random((1, 4, 6, 8)))
    coarse = at_spacing(volume, (4, 3, 4))
    assert content_hash(coarse) == content_hash(volume)
    assert original_shape(coarse) == (4, 6, 8)
