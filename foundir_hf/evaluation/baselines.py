"""What a photograph gains without learning: classical methods, blind as the model is, told neither noise level nor kernel.

Every baseline maps `(height, width, 3)` in [0, 1] to the same. Constants were set on the package's sample photographs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from .metrics import MissingExtraError

Baseline = Callable[[np.ndarray], np.ndarray]


def estimate_sigma(image: np.ndarray) -> float:
    """Deviation of white noise, from the median of the finest diagonal Haar coefficients (Donoho & Johnstone, Biometrika 1994)."""
    height, width = (side // 2 * 2 for side in image.shape[:2])
    even, odd = image[0:height:2, :width], image[1:height:2, :width]
    diagonal = (even[:, 0::2] - even[:, 1::2] - odd[:, 0::2] + odd[:, 1::2]) / 2
    return float(np.median(np.abs(diagonal)) / 0.6745) if diagonal.size else 0.0


def nlm(image: np.ndarray) -> np.ndarray:
    """Non-local means (Buades et al., CVPR 2005) with the estimated noise level."""
    sigma = estimate_sigma(image)
    if sigma == 0:
        return image
    from skimage.restoration import denoise_nl_means

    return denoise_nl_means(image, patch_size=5, patch_distance=6, h=0.6 * sigma, sigma=sigma, fast_mode=True, channel_axis=2)


def total_variation(image: np.ndarray) -> np.ndarray:
    """Total variation (Chambolle, JMIV 2004); the weight follows the estimated noise level and suits JPEG's blocks where there is none."""
    from skimage.restoration import denoise_tv_chambolle

    return denoise_tv_chambolle(image, weight=max(0.02, 0.85 * estimate_sigma(image)), channel_axis=2)


def median(image: np.ndarray) -> np.ndarray:
    """The median of 5x5 pixels: takes streaks and drops for outliers."""
    from scipy.ndimage import median_filter

    return median_filter(image, size=(5, 5, 1))


def unsharp(image: np.ndarray) -> np.ndarray:
    """Unsharp masking, radius 2 pixels, amount 0.5."""
    from skimage.filters import unsharp_mask

    return unsharp_mask(image, radius=2, amount=0.5, channel_axis=2)


def unsharp_fine(image: np.ndarray) -> np.ndarray:
    """Unsharp masking, radius 1 pixel, amount 0.3: what an enlarged picture bears."""
    from skimage.filters import unsharp_mask

    return unsharp_mask(image, radius=1, amount=0.3, channel_axis=2)


def wiener(image: np.ndarray) -> np.ndarray:
    """Wiener deconvolution of an assumed Gaussian blur of 1 pixel with a Laplacian prior (Hunt, IEEE Trans. Computers 1973)."""
    from skimage.restoration import wiener as deconvolve

    margin = 16
    axis = np.arange(-7, 8)
    kernel = np.exp(-(axis[:, None] ** 2 + axis**2) / 2)
    padded = np.pad(image, ((margin, margin), (margin, margin), (0, 0)), mode="symmetric")  # the transform is periodic
    sharp = [np.asarray(deconvolve(padded[..., c], kernel / kernel.sum(), balance=0.03, clip=False)) for c in range(3)]
    return np.stack(sharp, axis=2)[margin:-margin, margin:-margin]


def dark_channel(image: np.ndarray, *, patch: int = 15, omega: float = 0.95, radius: int = 30, epsilon: float = 1e-3) -> np.ndarray:
    """Dark channel prior (He, Sun & Tang, TPAMI 2011), its transmission refined by a guided filter (TPAMI 2013, section 3)."""
    from scipy.ndimage import minimum_filter, uniform_filter

    def box(values: np.ndarray) -> np.ndarray:
        return uniform_filter(values, size=2 * radius + 1)

    dark = minimum_filter(image.min(axis=2), size=patch)
    brightest = np.argsort(dark, axis=None, kind="stable")[-max(1, dark.size // 1000) :]
    airlight = image.reshape(-1, 3)[brightest].mean(axis=0).clip(0.1)
    transmission = 1 - omega * minimum_filter((image / airlight).min(axis=2), size=patch)
    guide = image.mean(axis=2)
    mean_guide, mean_transmission = box(guide), box(transmission)
    slope = (box(guide * transmission) - mean_guide * mean_transmission) / (box(guide**2) - mean_guide**2 + epsilon)
    refined = box(slope) * guide + box(mean_transmission - slope * mean_guide)
    return (image - airlight) / refined.clip(0.1, 1)[..., None] + airlight


def auto_gamma(image: np.ndarray) -> np.ndarray:
    """The power that takes the mean to 0.45, which photographs have on average."""
    mean = float(image.mean())
    return image ** (np.log(0.45) / np.log(mean)) if 0 < mean < 1 else image


def gray_world(image: np.ndarray) -> np.ndarray:
    """A factor a channel that makes the average grey (Buchsbaum, J. Franklin Institute 1980)."""
    means = image.mean(axis=(0, 1)).clip(1e-3)
    return image * (means.mean() / means)


def clahe(image: np.ndarray) -> np.ndarray:
    """Contrast-limited adaptive histogram equalisation of HSV's value (Zuiderveld, Graphics Gems IV, 1994)."""
    from skimage.exposure import equalize_adapthist

    return equalize_adapthist(image.clip(0, 1), clip_limit=0.02)


# Lanczos is for inputs smaller than their truths; see `enlarge`.
BASELINES: dict[str, Baseline] = {
    "nlm": nlm,
    "total_variation": total_variation,
    "median": median,
    "unsharp": unsharp,
    "unsharp_fine": unsharp_fine,
    "wiener": wiener,
    "dark_channel": dark_channel,
    "auto_gamma": auto_gamma,
    "clahe": clahe,
    "gray_world": gray_world,
}
# Defect -> who removes it, best known first; from the file back to the scene, the order in which several are undone.
BY_DEFECT: dict[str, tuple[str, ...]] = {
    "compression": ("total_variation",),
    "noise": ("nlm", "total_variation"),
    "low_resolution": ("unsharp_fine", "unsharp"),
    "blur": ("unsharp", "wiener"),
    "overexposure": ("auto_gamma",),
    "darkness": ("auto_gamma", "clahe"),
    "color": ("gray_world",),
    "haze": ("dark_channel",),
    "rain": ("median",),
    "raindrops": ("median",),
    "snow": ("median",),
    "scratches": ("median",),
}
_LONGEST_CHAIN = 3


def choose(names: Sequence[str]) -> tuple[str, ...]:
    """Baselines by name, or for defects: all for a single defect; for several each one's first, and up to three their chain `a+b`.

    Raises:
        ValueError: For what is neither a baseline nor a defect.
    """
    unknown = [name for name in names if name not in BASELINES and name not in BY_DEFECT]
    if unknown:
        raise ValueError(
            f"`baselines` must be among {', '.join(BASELINES)} or defects ({', '.join(BY_DEFECT)}); got {', '.join(map(repr, unknown))}."
        )
    chosen = [name for name in names if name in BASELINES]
    defects = [defect for defect in BY_DEFECT if defect in names]
    firsts = list(dict.fromkeys(BY_DEFECT[defect][0] for defect in defects))
    chosen += BY_DEFECT[defects[0]] if len(defects) == 1 else firsts
    if 1 < len(firsts) <= _LONGEST_CHAIN:
        chosen.append("+".join(firsts))
    return tuple(dict.fromkeys(chosen))


def for_defects(defects: Sequence[str]) -> tuple[str, ...]:
    """[`choose`] for a sub-task's defects; those that no classical method here removes get none."""
    return choose([defect for defect in defects if defect in BY_DEFECT])


def run_baseline(name: str, image: np.ndarray) -> np.ndarray:
    """A baseline, or a chain `a+b`, on `(height, width, 3)` on the scale of 8 bits: clipped first and rounded last, `uint8`."""
    pixels = image.clip(0, 255) / 255
    try:
        for part in name.split("+"):
            pixels = BASELINES[part](pixels).clip(0, 1)
    except ImportError as error:
        raise MissingExtraError(f"baseline {name!r} needs scikit-image: pip install 'foundir_hf[eval]'.") from error
    return (pixels * 255).round().astype(np.uint8)


def enlarge(image: np.ndarray, size: Sequence[int], kernel: Image.Resampling) -> np.ndarray:
    """`uint8` image to `(height, width)`, as the super-resolution literature enlarges (bicubic with a = -0.5), or by Lanczos."""
    return np.asarray(Image.fromarray(image).resize((size[1], size[0]), kernel))
