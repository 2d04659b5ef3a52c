"""The loss of the BraTS 2018 winner, whose autoencoder branch reconstructs the input."""

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
    """Dice loss, plus the losses of a variational autoencoder branch: Dice + 0.1 L2 + 0.1 KL.

    Parameters
    ----------
    reconstruction_weight : float
        Factor of the mean squared error of the reconstructed input.
    kl_weight : float
        Factor of the Kullback-Leibler divergence of the latent code from a standard normal distribution.
    kl_divisor : {"latent", "voxels", "values", "half"}
        What the divergence is divided by: the size of the latent code, the voxels of an image (as the paper writes),
        its voxels times channels, or twice the size of the code.

    Returns
    -------
    Tensor, a scalar

    Notes
    -----
    - Dice: the mean over the classes of 1 - (2 Σyp + 1e-8) / (Σy² + Σp² + 1e-8). The source adds the 1e-8 to the
      denominator only, so that an absent class would have loss 1.
    - L2: the mean of (x - x̂)² over all voxels of the image, ignored ones included.
    - KL: Σ (μ² + σ² - ln σ² - 1) / N of each image, mean over the images, where N is the divisor.

    For a network without the branch the loss is the Dice term.

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
    """Compute the KL divergence of latent codes from a standard normal distribution, mean over the images.

    Parameters
    ----------
    mean, log_variance : Tensor of shape (B, N)
    image : Tensor of shape (B, C, *S)
        The encoded input.
    divisor : {"latent", "voxels", "values", "half"}

    Returns
    -------
    Tensor, a scalar
    """
    latent, values = mean[0].numel(), image[0].numel()
    divisors = {"latent": latent, "voxels": values // image.shape[1], "values": values, "half": 2 * latent}
    divergence = mean.square() + log_variance.exp() - log_variance - 1
    return divergence.flatten(1).sum(1).mean() / divisors[divisor]
