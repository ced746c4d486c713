"""Prompts written by a model that looks at the photograph, as the paper has them of LLaVA."""

from __future__ import annotations

from typing import Any

import PIL.Image
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

# What a model that follows instructions is asked. Denoisers of SDXL's kind read 77 tokens.
INSTRUCTION = "Describe what this photograph shows in one sentence."
MAX_TOKENS = 60


class Captioner:
    """Any image-to-text model of transformers (BLIP, LLaVA, ...), from safetensors; the same photograph gives the same caption.

    Args:
        model: Folder or Hub repository of the model and its processor.
        device: Where it is to run, in half precision on CUDA.

    Raises:
        ValueError: If there is no such model.
    """

    def __init__(self, model: str, device: torch.device | str = "cpu"):
        device = torch.device(device)
        dtype = torch.float16 if device.type == "cuda" else torch.float32
        try:
            self.processor: Any = AutoProcessor.from_pretrained(model)
            loaded: Any = AutoModelForImageTextToText.from_pretrained(model, dtype=dtype, use_safetensors=True)
        except (OSError, ValueError, KeyError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(f"`model` {model!r} is no image-to-text model of transformers with safetensors: {reason}") from error
        self.model = loaded.to(device).eval()

    @torch.no_grad()
    def __call__(self, image: PIL.Image.Image) -> str:
        """A sentence about an RGB image of any size."""
        image = image.convert("RGB")
        if getattr(self.processor, "chat_template", None):
            content = [{"type": "image"}, {"type": "text", "text": INSTRUCTION}]
            prompt = self.processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
            inputs = self.processor(images=image, text=prompt, return_tensors="pt")
        else:
            inputs = self.processor(images=image, return_tensors="pt")
        inputs = inputs.to(self.model.device, self.model.dtype)
        tokens = self.model.generate(**inputs, max_new_tokens=MAX_TOKENS, do_sample=False)
        answered = tokens[0, inputs["input_ids"].shape[1] :] if "input_ids" in inputs else tokens[0]
        return " ".join(self.processor.decode(answered, skip_special_tokens=True).split())
