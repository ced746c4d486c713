"""The Space: drop a photo, Restore, compare, download. Layout only; everything else is the package's public API.

Run it on a laptop: `python space/app.py`, then open http://127.0.0.1:7860.
"""

from __future__ import annotations

import os
import tempfile
import threading
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Literal

import gradio as gr
import torch

from foundir_hf import load_pipeline, restore_photo
from foundir_hf.photo import WRITERS, PhotoError, read_photo, write_photo

SEED = 0
MAX_MEGAPIXELS = 24
# A private folder that gradio may serve from; each restoration gets a folder of its own in it.
RESULTS = Path(tempfile.mkdtemp(prefix="foundir-"))

pipeline = load_pipeline(os.environ.get("FOUNDIR_CHECKPOINT", "tiny"), device="cuda" if torch.cuda.is_available() else "cpu")
one_at_a_time = threading.Lock()  # a pipeline holds its scheduler's state


def restore(
    path: str | None,
    upscale: float,
    strength: float,
    steps: Literal[0, 1],
    tone: Literal["auto", "off", "always"],
    progress: gr.Progress = gr.Progress(),  # noqa: B008
):
    """A photograph's path -> (before, after) for the slider, the file to download, and a line of text."""
    if path is None:
        raise gr.Error("Drop a photograph first.", print_exception=False)
    try:
        photo = read_photo(path)
        width, height = (round(side * upscale) for side in photo.image.size)
        if width * height > MAX_MEGAPIXELS * 1e6:
            raise PhotoError(f"The result would have {width * height / 1e6:.0f} megapixels; this page stops at {MAX_MEGAPIXELS}.")
        with one_at_a_time:
            pipeline.progress_bar = partial(_PageProgress, progress)
            restored = restore_photo(
                pipeline,
                photo,
                upscale=upscale,
                strength=strength,
                num_inference_steps=steps,
                tone=tone,
                generator=torch.Generator().manual_seed(SEED),
            )
        # The same format as the photograph's, by the same writer as the command line's.
        source = Path(path)
        suffix = source.suffix.lower() if source.suffix.lower() in WRITERS else ".png"
        result = Path(tempfile.mkdtemp(dir=RESULTS)) / f"{source.stem}-restored{suffix}"
        write_photo(restored, result)
    except (PhotoError, ValueError) as error:
        # The visitor knows the name of the photograph, not the path it was uploaded to.
        raise gr.Error(str(error).replace(str(path), Path(path).name), print_exception=False) from error
    before = photo.image.convert("RGB").resize(restored.image.size)
    return (before, restored.image.convert("RGB")), str(result), f"{width} x {height} pixels, seed {SEED}"


class _PageProgress(AbstractContextManager):
    """The pipeline's own progress bar, tile by tile, on the page."""

    def __init__(self, page: gr.Progress, total: int):
        self.page, self.done, self.total = page, 0, total

    def __exit__(self, *exception) -> None:
        return None

    def update(self) -> None:
        self.done += 1
        self.page((self.done, self.total), desc="Restoring", unit="tiles")


with gr.Blocks(title="foundir_hf: restore a photo") as app:
    gr.Markdown(
        "# Restore a photo\n"
        "Noise, blur, rain, haze, darkness, JPEG, low resolution, or several of them: drop the photo and press **Restore**. "
        "Nothing has to be told about the damage."
    )
    with gr.Row():
        with gr.Column(scale=1):
            photo_input = gr.Image(
                type="filepath", image_mode=None, label="Damaged photo", elem_id="photo", sources=["upload", "clipboard"], height=340
            )
            # As it came: gradio would open it first, and has no word for the visitor on a file that is no photograph.
            photo_input.preprocess = lambda payload: payload and payload.path
            restore_button = gr.Button("Restore", variant="primary", elem_id="restore")
            with gr.Accordion("Settings", open=False, elem_id="settings"):
                upscale_input = gr.Slider(1, 4, value=1, step=0.5, label="Enlarge by")
                strength_input = gr.Slider(0, 1, value=1, label="Strength", info="0 returns the photo as it is")
                steps_input = gr.Radio([("Best", 1), ("Fast", 0)], value=1, label="Quality", elem_id="steps")
                tone_input = gr.Radio(
                    ["auto", "off", "always"],
                    value="auto",
                    label="Exposure, haze and colour",
                    info="auto mends them where they are surely wrong, off never, always in any case",
                    elem_id="tone",
                )
        with gr.Column(scale=2):
            slider = gr.ImageSlider(label="Before | after", format="png", elem_id="slider", interactive=False, max_height=720)
            status = gr.Markdown(elem_id="status")
            download = gr.File(label="Restored photo, full quality", elem_id="download", interactive=False)
    restore_button.click(
        restore,
        [photo_input, upscale_input, strength_input, steps_input, tone_input],
        [slider, download, status],
        api_name="restore",
        concurrency_limit=1,
        show_progress_on=slider,
    )

if __name__ == "__main__":
    app.queue(max_size=16).launch(allowed_paths=[str(RESULTS)], share=False)
