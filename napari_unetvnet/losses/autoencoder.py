"""The loss of the BraTS 2018 winner, whose autoencoder branch has to give the input back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from napari_unetvnet.losses.declare import head_modes, needs
from napari_unetvnet.losses.overlap import dice

if TYPE_CHECKING:
    from torch import Tensor

    from napari_unetvnet.losses.prepared import Prepared

__all__ = ["divergence", "vae"]


@needs("reconstruction")
@head_modes("binary", "multiclass", "multilabel")
def vae(
    prepared: Prepared,
    *,
    reconstruction_weight: float = 0.1,
    kl_weight: float = 0.1,
    kl_divisor: Literal["latent", "voxels", "values", "half"] = "latent",
) -> Tensor:
    """Dice, and what a variational autoencoder branch loses: Dice + 0.1 L2 + 0.1 KL.

    Parameters
    ----------
    prepared : Prepared
    reconstruction_weight : float
        Factor of the squared error of the input that the branch gives back.
    kl_weight : float
        Factor of the distance of its code from a standard normal distribution.
    kl_divisor : {"latent", "voxels", "values", "half"}
        What that distance is divided by: the numbers of the code, the voxels of an image (as the paper writes), its
        voxels times channels, or twice the numbers of the code.

    Returns
    -------
    Tensor, a scalar

    Notes
    -----
    - Dice: the mean over the classes of 1 - (2 Σyp + 1e-8) / (Σy² + Σp² + 1e-8); the source adds the 1e-8 below only,
      by which a class that is absent would cost 1.
    - L2: the mean of (x - x̂)² over all voxels of the image, unlabelled ones as well.
    - KL: Σ (μ² + σ² - ln σ² - 1) / N of each image, mean over the images, N being the divisor.

    A network without the branch learns from the Dice alone.

    References
    ----------
    .. [1] Myronenko 2018, 3D MRI brain tumor segmentation using autoencoder regularization,
       https://arxiv.org/abs/1810.11654
    .. [2] IAmSuyogJadhav/3d-mri-brain-tumor-segmentation-using-autoencoder-regularization,
       https://github.com/IAmSuyogJadhav/3d-mri-brain-tumor-segmentation-using-autoencoder-regularization
    """
    loss = dice(prepared, smooth=1e-8)
    outputs, image = prepared.outputs, prepared.image
    if outputs is None or image is None or outputs.reconstruction is None:
        return loss
    image = image.to(loss.dtype)
    loss = loss + reconstruction_weight * (outputs.reconstruction.to(loss.dtype) - image).square().mean()
    if outputs.latent is None:
        return loss
    mean, log_variance = (part.to(loss.dtype) for part in outputs.latent)
    return loss + kl_weight * divergence(mean, log_variance, image, kl_divisor)


def divergence(mean: Tensor, log_variance: Tensor, image: Tensor, divisor: str) -> Tensor:
    """Give the distance of codes from a standard normal distribution, mean over the images.

    Parameters
    ----------
    mean, log_variance : Tensor of shape (B, N)
    image : Tensor of shape (B, C, *S)
        What was encoded.
    divisor : {"latent", "voxels", "values", "half"}

    Returns
    -------
    Tensor, a scalar
    """
    numbers, values = mean[0].numel(), image[0].numel()
    divisors = {"latent": numbers, "voxels": values // image.shape[1], "values": values, "half": 2 * numbers}
    distance = mean.square() + log_variance.exp() - log_variance - 1
    return distance.flatten(1).sum(1).mean() / divisors[divisor]
