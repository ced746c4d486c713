"""The settings as the page shows them, for one photo, for a batch, and for programs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import gradio as gr

from .settings import FORMATS, PRESETS, SIZES, TONES, Settings, check_settings, measured


class Form:
    """Components, made where `quality` and `details` are called.

    Args:
        adapter_names: Those that the server offers.
        card: The model card, which says what the presets measured.
    """

    def __init__(self, adapter_names: tuple[str, ...], card: str):
        self.adapter_names, self._card = adapter_names, card

    def quality(self) -> None:
        """The presets."""
        self.preset = gr.Radio(_spoken(PRESETS), value="balanced", label="Quality", elem_id="preset", info=self._measured())

    def details(self) -> None:
        """All the rest, closed."""
        with gr.Accordion("More settings: size, tones, download", open=False, elem_id="settings"):
            self.size = gr.Radio(_spoken(SIZES), value="keep", label="Size", elem_id="size")
            self.factor = gr.Slider(1, 4, value=2, step=0.5, label="Factor", visible=False, elem_id="factor")
            self.width = gr.Number(value=2000, precision=0, label="Width in pixels", visible=False, elem_id="width")
            self.tone = gr.Radio(
                _spoken(TONES),
                value="auto",
                label="Exposure, haze and colour",
                info="Mended where they are surely wrong (auto), never (off), or however unsure the model is (always)",
                elem_id="tone",
            )
            self.strength = gr.Slider(0, 1, value=1, label="Strength", info="0 returns the photo as it is", elem_id="strength")
            self.format = gr.Radio(
                _spoken(FORMATS), value="as it came", label="Format of the download", info="PNG and TIFF keep 16 bits", elem_id="format"
            )
            self.quality_of_file = gr.Slider(
                0, 100, value=0, step=1, label="Quality of a JPEG or WebP", info="0 keeps the quality of your file", elem_id="quality"
            )
            names = self.adapter_names
            self.adapter = gr.Dropdown(
                list(names),
                multiselect=True,
                label="Adapters",
                info="Each is for one kind of photo: see the tab Adapters",
                visible=bool(names),
                elem_id="adapters",
            )
            self.weight = gr.Slider(0, 2, value=1, step=0.05, label="Weight of the adapters", visible=bool(names), elem_id="adapter-weight")

    @property
    def plain(self) -> list[Any]:
        """The components that programs set as well, in the order of [`check_settings`]."""
        return [self.preset, self.tone, self.strength, self.size, self.factor, self.width, self.format, self.quality_of_file]

    @property
    def components(self) -> list[Any]:
        """All that the page sends with a photo, for `read`."""
        return [*self.plain, self.adapter, self.weight]

    def read(self, *values: Any) -> Settings:
        """From the page's own components, whose adapters are chosen and not typed. Raises [`SettingError`]."""
        *plain, adapters, weight = values
        return self.check(*plain, ", ".join(f"{name}:{weight:g}" for name in adapters or []))

    def check(self, *values: Any) -> Settings:
        """From what a program sent. Raises [`SettingError`]."""
        return check_settings(*values, known_adapters=self.adapter_names)

    def events(self, **quiet: Any) -> None:
        """Shows the factor and the width where they are asked for."""
        self.size.change(
            lambda size: (gr.update(visible=size == SIZES[1]), gr.update(visible=size == SIZES[2])),
            self.size,
            [self.factor, self.width],
            queue=False,
            **quiet,
        )

    def _measured(self) -> str:
        """What tells the presets apart, by the model card."""
        psnr = measured(self._card)
        count = PRESETS["thorough"]
        stages = f"Fast gives a first estimate, balanced refines it once, thorough {count} times and takes longer."
        if not all(steps in psnr for steps in PRESETS.values()):
            return stages
        found = ", ".join(f"{psnr[steps]:.1f}" for steps in PRESETS.values())
        return f"{stages} Closeness of test photos to their originals: {found} dB (more is better)."


def _spoken(names: Iterable[str]) -> list[tuple[str, str]]:
    """Choices, as people read them and as programs name them."""
    return [(name[0].upper() + name[1:], name) for name in names]
