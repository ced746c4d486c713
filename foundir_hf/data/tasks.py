"""The table of sub-tasks. A row is data: a name, a family, a degradation and its ranges. Adding a task is adding a row."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch

from .degradations.blur import camera_shake, defocus_blur, gaussian_blur, glass_blur, motion_blur, rotation_blur, zoom_blur
from .degradations.compression import chroma_subsampling, double_jpeg, jpeg, palette_dither, posterization, video_blocks, webp
from .degradations.haze import dust, haze, layered_haze, night_haze, nonhomogeneous_haze, thin_cloud
from .degradations.illumination import back_light, color_cast, fading, low_light, over_exposure, vignetting
from .degradations.media import fold_creases, old_photo, paint_loss, scratches, sepia, stains
from .degradations.noise import (
    banding_noise,
    camera_noise,
    color_noise,
    film_grain,
    gaussian_noise,
    phone_noise,
    poisson_noise,
    salt_and_pepper_noise,
    speckle_noise,
)
from .degradations.resolution import aliasing, downsample, interlacing, oversharpening, second_order_degradation
from .degradations.scene import lens_flare, moire, reflection, shadow, underwater
from .degradations.weather import long_rain, night_rain, rain, raindrops, snow

STAGES = ("scene", "light", "lens", "sensor", "file")
# Where damage happens on the way from the scene to the file. Composites follow this order.
SCENE, LIGHT, LENS, SENSOR, FILE = range(len(STAGES))


@dataclass(frozen=True)
class Task:
    """One sub-task.

    Args:
        name: Unique, as the command line and configurations spell it.
        family: The group that tables report.
        degradation: `(images, generator, **ranges) -> images`, both `(batch, 3, height, width)` in [0, 1].
        ranges: Keyword arguments of the degradation; their units are in its docstring.
        stage: Where it happens: `SCENE`, `LIGHT`, `LENS`, `SENSOR` or `FILE`.
        removes: The defects that a model learns to remove from it. A photograph that has one of them is no ground truth for this task.
        reference: Who describes the damage, or measures with it.
        metric: What ranks models on it, of [`~foundir_hf.evaluation.metrics.METRICS`]. PSNR; but where the damage leaves several pictures
            that might be the truth, LPIPS: PSNR would rank their blurred average first (Blau and Michaeli, CVPR 2018).
    """

    name: str
    family: str
    degradation: Callable[..., torch.Tensor]
    ranges: Mapping[str, Any]
    stage: int
    removes: tuple[str, ...] = ()
    reference: str = ""
    metric: str = "psnr"

    @property
    def parameters(self) -> dict[str, Any]:
        """Keyword arguments of the degradation, the row's and those it has by default."""
        defaults = {p.name: p.default for p in inspect.signature(self.degradation).parameters.values() if p.kind is p.KEYWORD_ONLY}
        return {**defaults, **self.ranges}

    def degrade(self, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Clean images -> degraded images, `(batch, 3, height, width)` in [0, 1]; every image draws its own parameters."""
        return self.degradation(images, generator, **self.ranges)


def compose(images: torch.Tensor, generator: torch.Generator, *, parts: Sequence[Task]) -> torch.Tensor:
    """All `parts`, in physical order; those of one stage in the order given."""
    for task in sorted(parts, key=lambda task: task.stage):
        images = task.degrade(images, generator)
    return images


def mix(images: torch.Tensor, generator: torch.Generator, *, ingredients: Sequence[Task], count: int = 2) -> torch.Tensor:
    """`count` random degradations of different stages, in physical order; one draw for the whole batch."""
    stages = len({task.stage for task in ingredients})
    if count > stages:
        raise ValueError(f"`count` must be at most the {stages} stages that `ingredients` cover, got {count}.")
    chosen: list[Task] = []
    for index in torch.randperm(len(ingredients), generator=generator, device=images.device).tolist():
        if len(chosen) < count and ingredients[index].stage not in {task.stage for task in chosen}:
            chosen.append(ingredients[index])
    return compose(images, generator, parts=chosen)


def unchanged(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """A clean photograph: the model must learn to leave it alone."""
    return images


_NOISE, _BLUR, _COMPRESSION, _LOW_RESOLUTION, _HAZE, _RAIN, _DARKNESS, _COLOR = (
    ("noise",),
    ("blur",),
    ("compression",),
    ("low_resolution",),
    ("haze",),
    ("rain",),
    ("darkness",),
    ("color",),
)
# Defects of the light and colour of a photograph as a whole: what tone curves mend.
TONE_DEFECTS = frozenset({"haze", "darkness", "overexposure", "color", "uneven_light"})
_NOISY_DARK = {"exposure": (0.05, 0.2), "noise": (0.02, 0.06)}
_DENSE = {"density": (2.4, 4.5), "airlight": (0.6, 0.9)}
_LIGHT_RAIN = {"length": (8, 25), "strength": (0.3, 0.7), "veil": (0.0, 0.05), "sparsity": (2.2, 3.0)}
_HEAVY_RAIN = {"length": (20, 60), "strength": (0.6, 1.0), "veil": (0.1, 0.3), "sparsity": (0.5, 1.8)}
_FINE_RAIN = {"length": (5, 24), "strength": (0.08, 0.4), "veil": (0.0, 0.3), "sparsity": (-0.5, 1.5)}
_RAIN_MIST = {"length": (10, 40), "strength": (0.3, 0.7), "veil": (0.35, 0.7), "sparsity": (1.0, 2.2)}
_DEEP_WATER = {"distance": (0.5, 6.0), "depth": (1.0, 8.0), "water": (0.0, 2.6), "turbidity": (0.03, 0.25), "levels": (0.5, 1.0)}
_REAL_ESRGAN, _IMAGENET_C = "Real-ESRGAN, ICCVW 2021", "ImageNet-C, ICLR 2019"

_SINGLE = (
    Task("gaussian_noise", "noise", gaussian_noise, {"sigma": (5, 55)}, SENSOR, _NOISE, "DnCNN, TIP 2017; CBSD68"),
    Task("poisson_noise", "noise", poisson_noise, {"peak": (15, 300)}, SENSOR, _NOISE, "Foi et al., TIP 2008"),
    Task("camera_noise", "noise", camera_noise, {}, SENSOR, _NOISE, "Brooks et al., CVPR 2019; PolyU, SIDD"),
    Task("phone_noise", "noise", phone_noise, {}, SENSOR, ("noise", "compression"), "Nam et al., CVPR 2016; PolyU"),
    Task("speckle_noise", "noise", speckle_noise, {"sigma": (0.05, 0.4)}, SENSOR, _NOISE, _IMAGENET_C),
    Task("salt_and_pepper_noise", "noise", salt_and_pepper_noise, {"density": (0.005, 0.15)}, SENSOR, _NOISE, _IMAGENET_C),
    Task("color_noise", "noise", color_noise, {}, SENSOR, _NOISE, "Nam et al., CVPR 2016"),
    Task("film_grain", "noise", film_grain, {}, SENSOR, _NOISE, "Newson et al., CGF 2017"),
    Task("banding_noise", "noise", banding_noise, {}, SENSOR, _NOISE, "ELD, CVPR 2020"),
    Task("motion_blur", "blur", motion_blur, {"length": (5, 23), "bend": 0.0}, LENS, _BLUR, "GoPro, CVPR 2017"),
    Task("curved_motion_blur", "blur", motion_blur, {"length": (8, 27), "bend": 1.5}, LENS, _BLUR, "Levin et al., CVPR 2009"),
    Task("camera_shake", "blur", camera_shake, {}, LENS, _BLUR, "Boracchi and Foi, TIP 2012"),
    Task("rotation_blur", "blur", rotation_blur, {}, LENS, _BLUR, "Whyte et al., CVPR 2010"),
    Task("zoom_blur", "blur", zoom_blur, {}, LENS, _BLUR, _IMAGENET_C),
    Task("defocus_blur", "blur", defocus_blur, {"radius": (1, 6)}, LENS, _BLUR, "DPDD, ECCV 2020; LSD"),
    Task("gaussian_blur", "blur", gaussian_blur, {"sigma": (0.6, 4)}, LENS, _BLUR, _REAL_ESRGAN),
    Task("anisotropic_blur", "blur", gaussian_blur, {"sigma": (1, 3), "ratio": (1.5, 4)}, LENS, _BLUR, _REAL_ESRGAN),
    Task("glass_blur", "blur", glass_blur, {}, LENS, _BLUR, _IMAGENET_C),
    Task("jpeg", "compression", jpeg, {"quality": (8, 80)}, FILE, _COMPRESSION, "ITU-T T.81; LIVE1"),
    Task("double_jpeg", "compression", double_jpeg, {}, FILE, _COMPRESSION, "FBCNN, ICCV 2021"),
    Task("webp", "compression", webp, {}, FILE, _COMPRESSION, "RFC 9649"),
    Task("chroma_subsampling", "compression", chroma_subsampling, {}, FILE, _COMPRESSION, "ITU-R BT.601"),
    Task("posterization", "compression", posterization, {}, FILE, _COMPRESSION, _IMAGENET_C),
    Task("palette_dither", "compression", palette_dither, {}, FILE, _COMPRESSION, "GIF89a"),
    Task("video_blocks", "compression", video_blocks, {}, FILE, _COMPRESSION, "H.264; MFQE, CVPR 2018"),
    Task("downsample_x2", "resolution", downsample, {"factor": 2}, SENSOR, _LOW_RESOLUTION, "FoundIR-v2; Set5, Set14"),
    Task("downsample_x3", "resolution", downsample, {"factor": 3}, SENSOR, _LOW_RESOLUTION, "FoundIR-v2; Set5, Set14"),
    Task("downsample_x4", "resolution", downsample, {"factor": 4}, SENSOR, _LOW_RESOLUTION, "FoundIR-v2; Set5, Set14"),
    Task("downsample_x8", "resolution", downsample, {"factor": 8}, SENSOR, _LOW_RESOLUTION, "FoundIR-v2", "lpips"),
    Task("area_downsample_x2", "resolution", downsample, {"factor": 2, "kernel": "area"}, SENSOR, _LOW_RESOLUTION, "FoundIR-v2"),
    Task("area_downsample_x4", "resolution", downsample, {"factor": 4, "kernel": "area"}, SENSOR, _LOW_RESOLUTION, "FoundIR-v2"),
    Task("aliasing", "resolution", aliasing, {}, SENSOR, _LOW_RESOLUTION, "nearest-neighbour thumbnails"),
    Task(
        "real_esrgan",
        "resolution",
        second_order_degradation,
        {},
        SENSOR,
        ("low_resolution", "blur", "noise", "compression"),
        _REAL_ESRGAN,
        "lpips",
    ),
    Task("oversharpening", "resolution", oversharpening, {}, FILE, ("ringing",), _REAL_ESRGAN),
    Task("interlacing", "resolution", interlacing, {}, SENSOR, ("interlacing",), "ITU-R BT.601 fields"),
    Task("low_light", "illumination", low_light, {"exposure": (0.05, 0.5)}, LIGHT, _DARKNESS, "LOL, BMVC 2018"),
    Task("noisy_low_light", "illumination", low_light, _NOISY_DARK, LIGHT, ("darkness", "noise"), "LOLv2-real, TIP 2021"),
    Task("back_light", "illumination", back_light, {}, LIGHT, _DARKNESS, "BAID, TCSVT 2022"),
    Task("over_exposure", "illumination", over_exposure, {}, LIGHT, ("overexposure",), "Afifi et al., CVPR 2021"),
    Task("color_cast", "illumination", color_cast, {}, LIGHT, _COLOR, "Afifi et al., CVPR 2019"),
    Task("fading", "illumination", fading, {}, FILE, _COLOR, "Wan et al., CVPR 2020"),
    Task("vignetting", "illumination", vignetting, {}, LENS, ("uneven_light",), "Goldman, TPAMI 2010"),
    Task("haze", "weather", haze, {"density": (0.4, 2.6)}, SCENE, _HAZE, "RESIDE, TIP 2019"),
    Task("dense_haze", "weather", haze, _DENSE, SCENE, _HAZE, "Dense-Haze, ICIP 2019"),
    Task("layered_haze", "weather", layered_haze, {}, SCENE, _HAZE, "RESIDE indoor, TIP 2019"),
    Task("nonhomogeneous_haze", "weather", nonhomogeneous_haze, {}, SCENE, _HAZE, "NH-HAZE, CVPRW 2020"),
    Task("night_haze", "weather", night_haze, {}, SCENE, ("haze", "darkness"), "Li et al., ICCV 2015"),
    Task("light_rain", "weather", rain, _LIGHT_RAIN, SCENE, _RAIN, "Rain100L, CVPR 2017"),
    Task("rain", "weather", rain, {}, SCENE, _RAIN, "Rain1400 (DDN), CVPR 2017"),
    Task("heavy_rain", "weather", rain, _HEAVY_RAIN, SCENE, _RAIN, "Rain100H, CVPR 2017"),
    Task("long_rain", "weather", long_rain, {}, SCENE, _RAIN, "Rain1400 (DDN), CVPR 2017"),
    Task("fine_rain", "weather", rain, _FINE_RAIN, SCENE, _RAIN, "SPA-Data, CVPR 2019"),
    Task("rain_mist", "weather", rain, _RAIN_MIST, SCENE, ("rain", "haze"), "Li et al., CVPR 2019"),
    Task("night_rain", "weather", night_rain, {}, SCENE, ("rain", "darkness"), "FoundIR, ICCV 2025"),
    Task("raindrops", "weather", raindrops, {}, LENS, ("raindrops",), "Qian et al., CVPR 2018"),
    Task("snow", "weather", snow, {}, SCENE, ("snow",), "Snow100K, TIP 2018"),
    Task("dust", "weather", dust, {}, SCENE, ("haze", "color"), "Si et al., ICIP 2022"),
    Task("thin_cloud", "weather", thin_cloud, {}, SCENE, _HAZE, "RICE, 2019; RS-Cloud"),
    Task("underwater", "scene", underwater, {}, SCENE, ("color", "haze"), "Akkaynak and Treibitz, CVPR 2018; UIEB"),
    Task("deep_water", "scene", underwater, _DEEP_WATER, SCENE, ("color", "haze"), "UIEB, TIP 2019"),
    Task("shadow", "scene", shadow, {}, LIGHT, ("uneven_light",), "ISTD, CVPR 2018"),
    Task("lens_flare", "scene", lens_flare, {}, LENS, ("flare",), "Flare7K, NeurIPS 2022"),
    Task("reflection", "scene", reflection, {}, SCENE, ("reflection",), "SIR2, ICCV 2017"),
    Task("moire", "scene", moire, {}, SENSOR, ("moire",), "Sun et al., TIP 2018"),
    Task("scratches", "media", scratches, {}, FILE, ("scratches",), "Wan et al., CVPR 2020"),
    Task("sepia", "media", sepia, {}, FILE, _COLOR, "Wan et al., CVPR 2020"),
    Task("stains", "media", stains, {}, FILE, ("scratches",), "Wan et al., CVPR 2020", "lpips"),
    Task("paint_loss", "media", paint_loss, {}, FILE, ("scratches",), "Wang et al., Heritage Science 2022", "lpips"),
    Task("fold_creases", "media", fold_creases, {}, FILE, ("scratches",), "Wan et al., CVPR 2020", "lpips"),
    Task("old_photo", "media", old_photo, {}, FILE, ("scratches", "color", "noise"), "Wan et al., CVPR 2020", "lpips"),
)

# Ingredients of composites are milder than the same damage alone: two full doses leave nothing to restore. Darkness comes without its
# noise, which would be blurred by the lens that comes after it.
_MILD = {
    "blur": Task("mild_motion_blur", "blur", motion_blur, {"length": (5, 15)}, LENS, _BLUR),
    "defocus": Task("mild_defocus", "blur", defocus_blur, {"radius": (1, 3)}, LENS, _BLUR),
    "noise": Task("mild_noise", "noise", gaussian_noise, {"sigma": (5, 30)}, SENSOR, _NOISE),
    "jpeg": Task("mild_jpeg", "compression", jpeg, {"quality": (20, 80)}, FILE, _COMPRESSION),
    "low_resolution": Task("mild_downsample", "resolution", downsample, {"factor": 2}, SENSOR, _LOW_RESOLUTION),
    "rain": Task("mild_rain", "weather", rain, {}, SCENE, _RAIN),
    "raindrops": Task("mild_raindrops", "weather", raindrops, {}, LENS, ("raindrops",)),
    "snow": Task("mild_snow", "weather", snow, {}, SCENE, ("snow",)),
    "haze": Task("mild_haze", "weather", haze, {"density": (0.4, 1.6)}, SCENE, _HAZE),
    "low_light": Task("mild_low_light", "illumination", low_light, {"exposure": (0.12, 0.5), "noise": (0.0, 0.0)}, LIGHT, _DARKNESS),
    "color_cast": Task("mild_color_cast", "illumination", color_cast, {}, LIGHT, _COLOR),
}


def _composite(name: str, family: str, parts: str, reference: str = "own choice") -> Task:
    """A row for several ingredients; `parts` names them, separated by `+`."""
    tasks = tuple(_MILD[part] for part in parts.split("+"))
    return Task(name, family, compose, {"parts": tasks}, min(task.stage for task in tasks), _removed_by(tasks), reference)


def _removed_by(tasks: Sequence[Task]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(defect for task in tasks for defect in task.removes))


# The 20 types of FoundIR's benchmark (ICCV 2025), in its order. Those of one damage are full doses.
_FOUNDIR = "FoundIR, ICCV 2025"
_FOUNDIR20 = (
    Task("foundir_01_blur", "foundir20", motion_blur, {"length": (5, 23)}, LENS, _BLUR, _FOUNDIR),
    _composite("foundir_02_blur_noise", "foundir20", "blur+noise", _FOUNDIR),
    _composite("foundir_03_blur_jpeg", "foundir20", "blur+jpeg", _FOUNDIR),
    _composite("foundir_04_blur_noise_jpeg", "foundir20", "blur+noise+jpeg", _FOUNDIR),
    Task("foundir_05_noise", "foundir20", gaussian_noise, {"sigma": (5, 55)}, SENSOR, _NOISE, _FOUNDIR),
    Task("foundir_06_jpeg", "foundir20", jpeg, {"quality": (8, 80)}, FILE, _COMPRESSION, _FOUNDIR),
    _composite("foundir_07_noise_jpeg", "foundir20", "noise+jpeg", _FOUNDIR),
    Task("foundir_08_haze", "foundir20", haze, {"density": (0.4, 2.6)}, SCENE, _HAZE, _FOUNDIR),
    _composite("foundir_09_lowlight_haze", "foundir20", "haze+low_light", _FOUNDIR),
    Task("foundir_10_rain", "foundir20", rain, {}, SCENE, _RAIN, _FOUNDIR),
    Task("foundir_11_raindrop", "foundir20", raindrops, {}, LENS, ("raindrops",), _FOUNDIR),
    Task("foundir_12_night_rain", "foundir20", night_rain, {}, SCENE, ("rain", "darkness"), _FOUNDIR),
    _composite("foundir_13_rain_haze", "foundir20", "haze+rain", _FOUNDIR),
    Task("foundir_14_lowlight", "foundir20", low_light, {"exposure": (0.05, 0.5)}, LIGHT, _DARKNESS, _FOUNDIR),
    _composite("foundir_15_lowlight_blur", "foundir20", "low_light+blur", _FOUNDIR),
    _composite("foundir_16_lowlight_noise", "foundir20", "low_light+noise", _FOUNDIR),
    _composite("foundir_17_lowlight_jpeg", "foundir20", "low_light+jpeg", _FOUNDIR),
    _composite("foundir_18_lowlight_blur_noise", "foundir20", "low_light+blur+noise", _FOUNDIR),
    _composite("foundir_19_lowlight_blur_jpeg", "foundir20", "low_light+blur+jpeg", _FOUNDIR),
    _composite("foundir_20_lowlight_noise_jpeg", "foundir20", "low_light+noise+jpeg", _FOUNDIR),
)
_MIXABLE = tuple(_MILD[name] for name in ("noise", "blur", "defocus", "jpeg", "low_resolution", "rain", "haze", "low_light"))
_COMPOSITE = (
    _composite("haze_low_resolution", "composite", "haze+low_resolution", "FoundIR-v2, Fig. 6"),
    _composite("haze_noise", "composite", "haze+noise", "CDD-11, ECCV 2024"),
    _composite("haze_snow", "composite", "haze+snow", "CDD-11, ECCV 2024"),
    _composite("rain_blur", "composite", "rain+blur"),
    _composite("rain_low_light", "composite", "rain+low_light", "CDD-11, ECCV 2024"),
    _composite("snow_jpeg", "composite", "snow+jpeg"),
    _composite("raindrops_defocus", "composite", "raindrops+defocus"),
    _composite("low_resolution_jpeg", "composite", "low_resolution+jpeg", _REAL_ESRGAN),
    _composite("defocus_noise_jpeg", "composite", "defocus+noise+jpeg", _REAL_ESRGAN),
    _composite("haze_low_light_rain", "composite", "haze+rain+low_light", "CDD-11, ECCV 2024"),
    _composite("color_cast_noise", "composite", "color_cast+noise"),
    Task("mixture", "composite", mix, {"ingredients": _MIXABLE, "count": 2}, SCENE, _removed_by(_MIXABLE), "any two of different stages"),
    Task("mixture_of_three", "composite", mix, {"ingredients": _MIXABLE, "count": 3}, SCENE, _removed_by(_MIXABLE), "any three of them"),
)
_CLEAN = Task("clean", "clean", unchanged, {}, SCENE, (), "a photograph without damage")

TASKS: Mapping[str, Task] = MappingProxyType({task.name: task for task in (*_SINGLE, *_COMPOSITE, *_FOUNDIR20, _CLEAN)})


def get_task(name: str) -> Task:
    """The row called `name`."""
    try:
        return TASKS[name]
    except KeyError:
        raise ValueError(f"`task` must be one of {', '.join(TASKS)}; got {name!r}.") from None
