"""Loading pipelines with the installed package's classes: no remote code, no trust flag.

torch and the pipeline, which take seconds to import, are imported where they are used: a checkpoint is found, and hashed, without them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import hf_hub_download, snapshot_download

from .io.files import file_sha256

if TYPE_CHECKING:
    import torch

    from .pipelines.pipeline_foundir import FoundIRPipeline

CHECKPOINTS = Path(__file__).parent / "checkpoints"
DEFAULT_CHECKPOINT = "tiny"


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
        names = sorted(p.parent.name for p in CHECKPOINTS.glob("*/model_index.json"))
        meant = "".join(f" Did you mean {name!r}?" for name in get_close_matches(str(checkpoint), names, n=1))
        raise ValueError(
            f"`checkpoint` must be one of the bundled ones ({', '.join(names)}), a folder, or a Hub repository that can be reached; "
            f"got {str(checkpoint)!r} ({type(error).__name__}).{meant}"
        ) from error


def load_pipeline(
    checkpoint: str | Path = DEFAULT_CHECKPOINT,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    revision: str | None = None,
    **kwargs: Any,
) -> FoundIRPipeline:
    """Loads a pipeline with this package's classes, from safetensors only.

    Args:
        checkpoint: See [`resolve_checkpoint`].
        device: Where to put it.
        dtype: Of the weights; by default half precision on CUDA and single precision elsewhere, because CPUs compute half precision ten
            to three hundred times more slowly. `torch_dtype` is taken too.
        revision: Of a Hub repository.
        kwargs: Of [`FoundIRPipeline.from_pretrained`]: `variant`, `low_cpu_mem_usage`, `quantization_config`, components, ...
    """
    import torch

    from .pipelines.pipeline_foundir import FoundIRPipeline, installed_index

    device = torch.device(device)
    dtype = dtype or kwargs.pop("torch_dtype", None) or (torch.float16 if device.type == "cuda" else torch.float32)
    installed_index(read_index(checkpoint, revision), str(checkpoint))  # before the weights are fetched
    folder = resolve_checkpoint(checkpoint, revision)
    return FoundIRPipeline.from_pretrained(folder, dtype=dtype, **kwargs).to(device)


def stored_dtype(folder: Path) -> torch.dtype:
    """The floating point type that a checkpoint's weight files have, by the first tensor of the first."""
    from safetensors import safe_open

    with safe_open(min(folder.rglob("*.safetensors")), framework="pt") as file:
        return file.get_tensor(next(iter(file.keys()))).dtype


def checkpoint_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every weight file of a checkpoint, by relative path."""
    files = sorted(folder.rglob("*.safetensors"))
    return {str(file.relative_to(folder)): file_sha256(file) for file in files}
