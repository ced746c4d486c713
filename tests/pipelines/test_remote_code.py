"""A saved folder works for people who have diffusers and not this package: offline, from a folder, and from the Hub."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline

from foundir_hf.hub import load_pipeline, resolve_checkpoint
from foundir_hf.pipelines.pipeline_foundir import FoundIRPipeline

PACKAGE = Path(__file__).parents[2] / "foundir_hf"

# What a stranger runs. An import hook makes sure that nothing of the package is found, installed or not.
STRANGER = """
import sys
class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "foundir_hf":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, NotInstalled())
import numpy as np, torch
from PIL import Image
from diffusers import DiffusionPipeline
for argument in sys.argv[1:]:
    source, result, copy = argument.split("|")
    pipe = DiffusionPipeline.from_pretrained(source, trust_remote_code=True)
    pipe.set_progress_bar_config(disable=True)
    options = {"num_inference_steps": 2, "tile_size": 64, "tile_overlap": 32}
    restored = pipe(Image.open("photo.png"), generator=torch.Generator().manual_seed(0), **options)
    restored.images[0].save(result)
    if copy:
        pipe.save_pretrained(copy)
assert "foundir_hf" not in sys.modules
"""


def run(code: str, *arguments, cwd: Path, **environment: str) -> subprocess.CompletedProcess:
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(cwd / "home"), "HF_MODULES_CACHE": str(cwd / "modules"), **environment}
    env.pop("PYTHONPATH", None)
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=300)


def restored(pipe: FoundIRPipeline, photo) -> np.ndarray:
    options = {"num_inference_steps": 2, "tile_size": 64, "tile_overlap": 32}
    return np.array(pipe(photo, generator=torch.Generator().manual_seed(0), **options).images[0]).astype(int)


@pytest.fixture
def expected(pipeline, photo, tmp_path) -> np.ndarray:
    photo.save(tmp_path / "photo.png")
    return restored(pipeline, photo)


def assert_same(path: Path, expected: np.ndarray) -> None:
    from PIL import Image

    # One level: memory that is aligned differently after loading changes the order of sums.
    assert np.abs(np.array(Image.open(path)).astype(int) - expected).max() <= 1


def test_saved_folders_load_without_the_package_and_are_saved_from_there(pipeline, sdxl, expected, photo, tmp_path):
    pipeline.save_pretrained(tmp_path / "tiny")
    sdxl.save_pretrained(tmp_path / "sdxl")
    done = run(STRANGER, "tiny|tiny.png|copy", "copy|copy.png|", "sdxl|sdxl.png|", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert_same(tmp_path / "tiny.png", expected)
    assert_same(tmp_path / "copy.png", expected)
    assert_same(tmp_path / "sdxl.png", restored(sdxl, photo))
    for path in (tmp_path / "tiny").rglob("*.py"):  # in one process modules are imported once
        assert (tmp_path / "copy" / path.relative_to(tmp_path / "tiny")).read_bytes() == path.read_bytes()


def test_without_the_flag_no_code_runs(pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="trust_remote_code"):
        DiffusionPipeline.from_pretrained(tmp_path)


def test_the_shipped_source_is_the_package_s_to_the_byte(pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path)
    shipped = sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*.py"))
    assert [str(p) for p in shipped] == [
        "attention_foundir.py",
        "color_fix_foundir.py",
        "lora_foundir.py",
        "lq_encoder/lq_encoder_foundir.py",
        "memory_foundir.py",
        "pipeline_foundir.py",
        "tiling_foundir.py",
        "tone/tone_curves_foundir.py",
        "unet/unet_foundir.py",
        "vae/cosine_autoencoder_foundir.py",
    ]
    for path in shipped:
        (original,) = PACKAGE.rglob(path.name)
        assert (tmp_path / path).read_bytes() == original.read_bytes()
    assert not list(tmp_path.rglob("*.bin"))
    assert "_name_or_path" not in json.loads((tmp_path / "model_index.json").read_text())


def test_pushing_and_loading_go_through_the_same_files(pipeline, expected, tmp_path):
    hub = subprocess.Popen([sys.executable, Path(__file__).with_name("fake_hub.py")], stdout=subprocess.PIPE, text=True)
    try:
        endpoint = f"http://127.0.0.1:{hub.stdout.readline().strip()}"
        online = {"HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": "hf_test"}
        pipeline.save_pretrained(tmp_path / "saved")
        with_package = """
import sys
from foundir_hf import load_pipeline
load_pipeline(sys.argv[1]).push_to_hub("me/tiny", token="hf_test")
print(type(load_pipeline("me/tiny")).__module__)
"""
        done = run(with_package, tmp_path / "saved", cwd=tmp_path, **online)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == "foundir_hf.pipelines.pipeline_foundir"  # our classes, no remote code, no flag
        done = run(STRANGER, "me/tiny|hub.png|", cwd=tmp_path, **online)
        assert done.returncode == 0, done.stderr
        assert_same(tmp_path / "hub.png", expected)
    finally:
        hub.kill()


@pytest.mark.parametrize("saved", ["pipeline", "sdxl"])
def test_loading_with_the_package_keeps_the_output(saved, photo, tmp_path, request):
    saved = request.getfixturevalue(saved)
    saved.save_pretrained(tmp_path / "saved")
    loaded = load_pipeline(tmp_path / "saved")
    loaded.set_progress_bar_config(disable=True)
    assert np.abs(restored(loaded, photo) - restored(saved, photo)).max() <= 1
    assert loaded.unet.dtype == torch.float32
    assert not loaded.unet.training


def test_a_folder_without_an_index_and_an_unknown_name_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"model_index\.json"):
        resolve_checkpoint(tmp_path)
    with pytest.raises(ValueError, match="`checkpoint`"):
        resolve_checkpoint("nobody/has-this")


def test_a_checkpoint_that_asks_for_foreign_classes_is_refused(pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    index["scheduler"] = ["os", "system"]
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"os\.system"):
        load_pipeline(tmp_path)


def test_no_saved_file_tells_a_path_of_this_machine(pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path / "first")
    load_pipeline(tmp_path / "first").save_pretrained(tmp_path / "second")  # what was loaded remembers where from
    for path in (tmp_path / "second").rglob("*.json"):
        assert str(tmp_path) not in path.read_text(encoding="utf-8"), path.name
