"""Open a viewer with layers and wait until it is closed; for the demonstration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ["show"]


def show(image: NDArray[Any], labels: Mapping[str, NDArray[Any]]) -> None:
    """Show an image with labels over it in a new viewer.

    Parameters
    ----------
    image : array of shape (Y, X) or (Z, Y, X)
    labels : mapping of str to array of the same shape
        Layer name to label image.
    """
    import napari

    viewer = napari.Viewer()
    viewer.add_image(image, name="image")
    for name, values in labels.items():
        viewer.add_labels(values, name=name)
    napari.run()
