"""`foundir export`: a folder that diffusers loads without this package."""

from __future__ import annotations

import argparse
import importlib.metadata
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from .common import check_writable, checkpoint_folder, load, model_options

if TYPE_CHECKING:
    from ..pipelines.pipeline_foundir import FoundIRPipeline

# What the Hub shows of a checkpoint that has no card of its own.
CARD = """---
{terms}
library_name: diffusers
pipeline_tag: image-to-image
tags:
- foundir
- image-restoration
---

# {name}

A checkpoint of foundir_hf: blind restoration of damaged photographs (FoundIR-v2).

```py
from diffusers import DiffusionPipeline
from PIL import Image

pipe = DiffusionPipeline.from_pretrained("{name}", trust_remote_code=True)  # or, with foundir_hf, load_pipeline("{name}") without that flag
pipe(Image.open("photo.jpg").convert("RGB")).images[0].save("restored.png")
```

The Python files beside the weights are what `trust_remote_code` runs; they are those of foundir_hf, under the licence in `LICENSE`.
"""
OWN_TERMS = "license: apache-2.0"
OTHER_TERMS = "license: other\nlicense_name: see-notice\nlicense_link: NOTICE"


def add_parser(commands) -> None:
    parser = commands.add_parser("export", parents=[model_options()], help="write a folder that diffusers loads without this package")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Writes the folder."""
    check_writable(arguments.output)
    pipeline = load(arguments)
    from ..hub import stored_dtype

    # As they are stored: the same files, so that an adapter of the one fits the other.
    source = checkpoint_folder(arguments)
    pipeline.to(stored_dtype(source)).save_pretrained(arguments.output)
    own_card = source / "README.md"
    write_card(arguments.output, pipeline, own_card.read_text(encoding="utf-8") if own_card.is_file() else None)
    print(f"{arguments.output}: DiffusionPipeline.from_pretrained({str(arguments.output)!r}, trust_remote_code=True)")


def write_card(folder: Path, pipeline: FoundIRPipeline, card: str | None = None) -> None:
    """Writes README.md, `card` or one made up from the folder's name, and the licence of the code. Weights under other terms have a
    `NOTICE` already, which is named."""
    note = pipeline.config["license_note"]
    if card is None:
        card = CARD.format(name=folder.name, terms=OTHER_TERMS if note else OWN_TERMS) + (
            f"\n## Terms of the weights\n\n{note}\n" if note else ""
        )
    (folder / "README.md").write_text(card, encoding="utf-8")
    (licence,) = [file for file in importlib.metadata.files("foundir_hf") or [] if file.name == "LICENSE"]
    shutil.copyfile(str(licence.locate()), folder / "LICENSE")
