"""Merging checkpoints: known weights in, their mean out."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from foundir_hf.pipelines.pipeline_foundir import FoundIRPipeline
from foundir_hf.training.build import build_modules
from foundir_hf.training.merge import merge

SCRIPT = Path(__file__).parents[2] / "training" / "merge.py"
REFINER = "lq_encoder.refiner."


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> list[str]:
    """Three checkpoints of `nano` whose every weight is 1, 2 and 4."""
    root = tmp_path_factory.mktemp("checkpoints")
    for value in (1, 2, 4):
        modules, scheduler = build_modules("nano")
        for parameter in modules.parameters():
            parameter.data.fill_(value)
        FoundIRPipeline(modules.vae, modules.lq_encoder, modules.unet, scheduler).save_pretrained(root / str(value))
    return [str(root / str(value)) for value in (1, 2, 4)]


def test_the_mean_and_a_part_of_another(folders):
    one, two, four = folders
    for folder, factor in ((one, 1.25), (four, 0.5)):
        config = Path(folder, "vae", "config.json")
        config.write_text(re.sub(r'("scaling_factor": )[^,]*', rf"\g<1>{factor}", config.read_text()))
    merged = merge({one: 3.0, two: 1.0}, {REFINER: four})
    assert merged.vae.config.scaling_factor == 1.25  # of the weights that it was measured on
    assert {float(p.min()) for p in merged.vae.state_dict().values()} == {1.25}
    assert {float(p.max()) for p in merged.unet.state_dict().values()} == {1.25}
    values = {n: float(p.mean()) for n, p in merged.lq_encoder.state_dict().items()}
    assert {v for n, v in values.items() if n.startswith("refiner.")} == {4.0}
    assert {v for n, v in values.items() if not n.startswith("refiner.")} == {1.25}


def test_a_part_may_be_new_to_the_others(folders, tmp_path):
    modules, scheduler = build_modules("nano")
    modules.lq_encoder.refiner = None
    modules.lq_encoder.register_to_config(refiner_channels=None)
    FoundIRPipeline(modules.vae, modules.lq_encoder, modules.unet, scheduler).save_pretrained(tmp_path / "without")
    merged = merge({str(tmp_path / "without"): 1.0}, {REFINER: folders[2]})
    assert {float(p.mean()) for p in merged.lq_encoder.refiner.state_dict().values()} == {4.0}
    torch.testing.assert_close(merged.vae.state_dict(), modules.vae.state_dict(), check_dtype=False)
    with pytest.raises(ValueError, match=r"lq_encoder\.refiner\..* is missing or of another shape in .*without"):
        merge({folders[0]: 1.0, str(tmp_path / "without"): 1.0})


@pytest.mark.parametrize(
    ("weights", "part", "message"),
    [((0.0, 0.0), REFINER, "not all 0"), ((-1.0, 2.0), REFINER, "not all 0"), ((1.0, 1.0), "refiner.", "none begins with 'refiner.'")],
)
def test_what_cannot_be_merged_is_refused(folders, weights, part, message):
    one, two, four = folders
    with pytest.raises(ValueError, match=message):
        merge(dict(zip((one, two), weights, strict=True)), {part: four})


def test_the_command_writes_a_checkpoint_and_never_over_one(folders, tmp_path):
    one, two, four = folders
    command = [sys.executable, SCRIPT, tmp_path / "out", one, two, "--weights", "1", "3", f"--part={REFINER}={four}"]
    assert subprocess.run(command, capture_output=True).returncode == 0
    tensors = load_file(tmp_path / "out" / "lq_encoder" / "diffusion_pytorch_model.safetensors")
    assert {(n.startswith("refiner."), float(t.float().mean()), t.dtype) for n, t in tensors.items()} == {
        (True, 4.0, torch.float16),
        (False, 1.75, torch.float16),
    }
    wrong = subprocess.run([sys.executable, SCRIPT, tmp_path / "other", one, two, "--weights", "1"], capture_output=True, text=True)
    assert (wrong.returncode, wrong.stderr.splitlines()[-1][:18]) == (2, "merge: `--weights`")
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 2
    assert again.stderr.splitlines()[-1].startswith("merge: `output`")
