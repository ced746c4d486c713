"""The card of an adapter: the `README.md` that the Hub shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

METHODS = {
    "lora": "[LoRA](https://arxiv.org/abs/2106.09685)",
    "adaptir": "[AdaptIR](https://arxiv.org/abs/2312.08881)",
    "full": "fine-tuning of everything",
}


@dataclass(frozen=True)
class Gain:
    """Mean PSNR over the reference pairs of a task, in decibels: of the input, of what the base makes of it, and of the result here."""

    pairs: int
    before: float
    base: float
    after: float


def write_card(*, name: str, method: str, base: str, size: str, training: str, gains: Mapping[str, Gain], held_out: bool) -> str:
    """The card's text.

    Args:
        name: Of the adapter.
        method: `lora`, `adaptir`, or `full` for a pipeline that was fine-tuned as a whole.
        base: Name of the checkpoint that was adapted.
        size: How many parameters were trained, as a sentence fragment.
        training: What it learnt from and for how long, as a sentence.
        gains: By task.
        held_out: Whether training saw none of those pairs.
    """
    rows = "\n".join(
        f"| {task} | {gain.pairs} | {gain.before:.2f} | {gain.base:.2f} | {gain.after:.2f} | {gain.after - gain.base:+.2f} |"
        for task, gain in gains.items()
    )
    pairs = "pairs that training did not see" if held_out else "pairs that training saw too, so these numbers flatter it"
    whole = method == "full"
    use = (
        f'pipe = load_pipeline("{name}")'
        if whole
        else f'pipe = load_pipeline("{base}")\nload_adapter(pipe, "{name}")  # `name=` to call it something else, set_adapters to weigh it'
    )
    imports = "" if whole else "from foundir_hf.adapters.files import load_adapter\n"
    command = f"foundir restore photo.jpg -o restored.jpg --checkpoint {name if whole else base}" + ("" if whole else f" --adapter {name}")
    return f"""---
base_model: {base}
library_name: {"diffusers" if whole else "peft"}
pipeline_tag: image-to-image
tags:
- foundir
- image-restoration
- {method}
---

# {name}

{METHODS[method]} of the FoundIR checkpoint `{base}`: {size}. {training}

PSNR in dB, means over {pairs}; crops, one denoising step.

| task | pairs | input | `{base}` | adapted | gain |
|---|---|---|---|---|---|
{rows}

```sh
{command}
```

```python
from foundir_hf import load_pipeline
{imports}
{use}
```
"""
