"""foundir_hf: blind restoration of damaged photographs (FoundIR-v2 and AdaptIR) in the Hugging Face ecosystem."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.2.0"

# Public names and where they live. Loaded on first use: `import foundir_hf` must not wait for diffusers.
_PUBLIC = {
    "FoundIRCosineAutoencoder": "models.cosine_autoencoder_foundir",
    "FoundIRLQEncoder": "models.lq_encoder_foundir",
    "FoundIRPipeline": "pipelines.pipeline_foundir",
    "FoundIRPipelineOutput": "pipelines.pipeline_foundir",
    "FoundIRPyramidEncoder": "models.lq_encoder_foundir",
    "FoundIRToneCurves": "models.tone_curves_foundir",
    "FoundIRUNet2DConditionModel": "models.unet_foundir",
    "load_pipeline": "hub",
    "Photo": "io.photograph",
    "PhotoError": "io.photograph",
    "read_photo": "io.reading",
    "restore_photo": "restoration.photo",
    "write_photo": "io.writing",
}

__all__ = [
    "FoundIRCosineAutoencoder",
    "FoundIRLQEncoder",
    "FoundIRPipeline",
    "FoundIRPipelineOutput",
    "FoundIRPyramidEncoder",
    "FoundIRToneCurves",
    "FoundIRUNet2DConditionModel",
    "Photo",
    "PhotoError",
    "__version__",
    "load_pipeline",
    "read_photo",
    "restore_photo",
    "write_photo",
]

if TYPE_CHECKING:
    from .hub import load_pipeline
    from .io.photograph import Photo, PhotoError
    from .io.reading import read_photo
    from .io.writing import write_photo
    from .models.cosine_autoencoder_foundir import FoundIRCosineAutoencoder
    from .models.lq_encoder_foundir import FoundIRLQEncoder, FoundIRPyramidEncoder
    from .models.tone_curves_foundir import FoundIRToneCurves
    from .models.unet_foundir import FoundIRUNet2DConditionModel
    from .pipelines.pipeline_foundir import FoundIRPipeline, FoundIRPipelineOutput
    from .restoration.photo import restore_photo


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_PUBLIC[name]}", __name__), name)
