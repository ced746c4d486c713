"""The page as a Space of Hugging Face, and on a laptop: `python space/app.py`, which is `foundir serve` without options."""

import contextlib
import os

with contextlib.suppress(ImportError):
    import spaces  # noqa: F401  # pyright: ignore[reportMissingImports]  # ZeroGPU wants to be imported before torch

from foundir_hf.space.limits import limits_of
from foundir_hf.space.server import serve

if __name__ == "__main__":
    try:
        limits = limits_of(os.environ)
    except ValueError as error:
        raise SystemExit(f"foundir: {error}") from None
    serve(os.environ.get("FOUNDIR_CHECKPOINT", "tiny"), adapters=os.environ.get("FOUNDIR_ADAPTERS"), limits=limits)
