"""One photograph through the model: transparency goes with it, metadata go around it, and numbers keep their depth.

torch and the pipeline, which take seconds to import, are imported where they are used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..io.photograph import Photo, as_light, as_type

if TYPE_CHECKING:
    import torch

    from ..pipelines.pipeline_foundir import FoundIRPipeline


def restore_photo(pipeline: FoundIRPipeline, photo: Photo, **options: Any) -> Photo:
    """Restores the picture of a photograph; transparency is enlarged with it and everything else is kept.

    What the model changes is added to the numbers as they are, at their own depth: light above white stays, and so does what is no number.

    Args:
        pipeline: From [`~foundir_hf.load_pipeline`].
        photo: From [`read_photo`]. With `strength=0` and no enlargement it comes back as it is.
        options: Of [`FoundIRPipeline.__call__`].
    """
    import torch

    from ..pipelines.pipeline_foundir import enlarge

    upscale = float(options.get("upscale", 1))
    if options.get("strength", 1) == 0 and upscale == 1:
        return photo
    if photo.alpha is None and photo.pixels.ndim == 3 and photo.pixels.dtype != np.float32:
        # Nothing is to be done beside the model, so that a large photograph is nowhere copied in single precision.
        restored: Any = pipeline(photo.pixels, **{**options, "output_type": "pt"}).images
        return photo.changed(pixels=as_type(restored[0].permute(1, 2, 0).numpy(), photo.pixels.dtype))
    light = as_light(photo.pixels)
    colours = torch.from_numpy(light.reshape(*light.shape[:2], -1)).permute(2, 0, 1)[None]
    visible = colours.nan_to_num().clamp(0, 1)
    if photo.alpha is not None:
        visible = _spread(visible, torch.from_numpy(as_light(photo.alpha))[None, None] > 0)
    grey = visible.shape[1] == 1
    restored = pipeline(visible.expand(-1, 3, -1, -1), **{**options, "output_type": "pt"}).images
    if grey:  # as Pillow weighs the colours
        restored = (restored * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)
    if photo.pixels.dtype == np.float32:
        beyond = colours - colours.nan_to_num().clamp(0, 1)
        restored = restored + (beyond if upscale == 1 else enlarge(beyond, upscale, limit=False))
    alpha = photo.alpha
    if alpha is not None and upscale == 1:
        # What cannot be seen stays what it was.
        hidden = torch.from_numpy(alpha == 0)[None, None]
        restored = torch.where(hidden, colours, restored)
    elif alpha is not None:
        larger = enlarge(torch.from_numpy(as_light(alpha))[None, None], upscale)[0, 0].numpy()
        alpha = as_type(larger, alpha.dtype)
    pixels = as_type(restored[0].permute(1, 2, 0).squeeze(2).numpy() if grey else restored[0].permute(1, 2, 0).numpy(), photo.pixels.dtype)
    return photo.changed(pixels=pixels, alpha=alpha)


def _spread(colours: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Colours `(1, channels, height, width)` that cannot be seen, filled in from those around them, coarse to fine: no dark rims."""
    import torch
    import torch.nn.functional as F

    if bool(known.all()) or min(colours.shape[2:]) < 2:
        return colours
    weight = known.float()
    share = F.avg_pool2d(weight, 2, ceil_mode=True)
    coarse = F.avg_pool2d(colours * weight, 2, ceil_mode=True) / share.clamp(min=1e-6)
    coarse = _spread(coarse, share > 0)
    filled = F.interpolate(coarse, size=colours.shape[2:], mode="bilinear", align_corners=False)
    return torch.where(known, colours, filled)
