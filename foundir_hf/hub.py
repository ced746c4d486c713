"""Loading pipelines with the installed package's classes: no remote code, no trust flag."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download, snapshot_download
from safetensors import safe_open

from .models.cosine_autoencoder_foundir import FoundIRCosineAutoencoder
from .models.lq_encoder_foundir import FoundIRLQEncoder, FoundIRPyramidEncoder
from .models.tone_curves_foundir import FoundIRToneCurves
from .models.unet_foundir import FoundIRUNet2DConditionModel
from .pipelines.pipeline_foundir import FoundIRPipeline

CHECKPOINTS = Path(__file__).parent / "checkpoints"
DEFAULT_CHECKPOINT = "tiny"

_OWN_CLASSES = {
    c.__name__: c
    for c in (FoundIRCosineAutoencoder, FoundIRLQEncoder, FoundIRPyramidEncoder, FoundIRToneCurves, FoundIRUNet2DConditionModel)
}
# Other components come from these libraries and nowhere else.
_LIBRARIES = ("diffusers", "transformers")


def resolve_checkpoint(checkpoint: str | Path = DEFAULT_CHECKPOINT, revision: str | None = None) -> Path:
    """The folder of a checkpoint: one that ships with the package (`"tiny"`), a local folder, or a Hub repository, in this order.

    Raises:
        ValueError: If it is none of these, naming what was looked for.
    """
    folder = _local_folder(checkpoint)
    if folder is not None:
        return folder
    ignored = ["*.py", "*.bin", "*.pt", "*.ckpt"]
    return Path(_from_hub(checkpoint, lambda: snapshot_download(str(checkpoint), revision=revision, ignore_patterns=ignored)))


def read_index(checkpoint: str | Path, revision: str | None = None) -> dict[str, Any]:
    """`model_index.json` of a checkpoint, looked for as [`resolve_checkpoint`] does; of a Hub repository this file alone is fetched."""
    folder = _local_folder(checkpoint)
    if folder is not None:
        path = folder / "model_index.json"
    else:
        path = Path(_from_hub(checkpoint, lambda: hf_hub_download(str(checkpoint), "model_index.json", revision=revision)))
    return json.loads(path.read_text(encoding="utf-8"))


def _local_folder(checkpoint: str | Path) -> Path | None:
    for folder in (CHECKPOINTS / str(checkpoint), Path(checkpoint)):
        if (folder / "model_index.json").is_file():
            return folder
    if Path(checkpoint).exists():
        raise ValueError(f"`checkpoint` {str(checkpoint)!r} is a folder without model_index.json.")
    return None


def _from_hub(checkpoint: str | Path, download: Callable[[], str]) -> str:
    try:
        return download()
    except Exception as error:  # the Hub client raises a dozen unrelated types
        names = ", ".join(sorted(p.parent.name for p in CHECKPOINTS.glob("*/model_index.json")))
        raise ValueError(
            f"`checkpoint` must be one of the bundled ones ({names}), a folder, or a Hub repository that can be reached; got {checkpoint!r}"
            f" ({type(error).__name__})."
        ) from error


def load_pipeline(
    checkpoint: str | Path = DEFAULT_CHECKPOINT,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    revision: str | None = None,
) -> FoundIRPipeline:
    """Loads a pipeline with this package's classes, from safetensors only.

    Args:
        checkpoint: See [`resolve_checkpoint`].
        device: Where to put it.
        dtype: Of the weights; by default half precision on CUDA and single precision elsewhere, because CPUs compute half precision ten
            to three hundred times more slowly.
        revision: Of a Hub repository.
    """
    device = torch.device(device)
    dtype = dtype or (torch.float16 if device.type == "cuda" else torch.float32)
    index = read_index(checkpoint, revision)
    held = str(index.get("_class_name"))  # a name, or a file of ours and a name
    if FoundIRPipeline.__name__ not in held:
        raise ValueError(f"`checkpoint` {str(checkpoint)!r} must hold a {FoundIRPipeline.__name__}, got {held}.")
    if "FoundIRAutoencoderKL" in index.get("vae", ()):
        raise ValueError(f"`checkpoint` {str(checkpoint)!r} is of foundir_hf 0.1, whose commit 04d752d reads it.")
    folder = resolve_checkpoint(checkpoint, revision)
    components = {}
    for name, entry in index.items():
        if name.startswith("_") or not isinstance(entry, list):
            continue
        library, class_name = entry
        if class_name is None:
            continue
        if class_name in _OWN_CLASSES:
            component_class = _OWN_CLASSES[class_name]
        elif library in _LIBRARIES:
            component_class = getattr(import_module(library), class_name)
        else:
            raise ValueError(f"`checkpoint` {str(checkpoint)!r} asks for {library}.{class_name}, which this package does not know.")
        is_model = issubclass(component_class, torch.nn.Module)
        kwargs = {"torch_dtype": dtype, "use_safetensors": True} if is_model else {}
        components[name] = component_class.from_pretrained(folder, subfolder=name, **kwargs)
    pipeline = FoundIRPipeline(**components)
    for component in (pipeline.lq_encoder, pipeline.unet):
        component.to(memory_format=torch.channels_last)  # a tenth faster on CPUs
    return pipeline.to(device)


def stored_dtype(folder: Path) -> torch.dtype:
    """The floating point type that a checkpoint's weight files have, by the first tensor of the first."""
    with safe_open(min(folder.rglob("*.safetensors")), framework="pt") as file:
        return file.get_tensor(next(iter(file.keys()))).dtype


def checkpoint_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every weight file of a checkpoint, by relative path."""
    files = sorted(folder.rglob("*.safetensors"))
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
