"""What a run tells of itself beside `log.jsonl`."""

from __future__ import annotations

from pathlib import Path

import pytest

from foundir_hf.training.build import build_modules
from foundir_hf.training.config import StageConfig, TrainConfig
from foundir_hf.training.loop import train


def test_tensorboard_gets_numbers_and_pictures(data, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    stage = StageConfig(
        "restore",
        "restoration",
        steps=2,
        trainable={"tone.gate.": 1.0},
        batch_size=2,
        crop_size=32,
        context_size=32,
        tasks={"low_light": 1.0, "gaussian_noise": 1.0},
    )
    config = TrainConfig("nano", (stage,), reference_samples=1, reference_size=32, trackers=("tensorboard",))
    modules, noise_scheduler = build_modules("nano")
    train(config, modules, noise_scheduler, data, tmp_path)

    events = [path for path in Path(tmp_path, "tracking").rglob("events.*") if path.parent.name == "tracking"]
    assert len(events) == 1
    found = EventAccumulator(str(events[0]), size_guidance={"images": 0}).Reload()
    tags = set(found.Tags()["scalars"])
    assert tags >= {"restore/loss", "restore/learning_rate", "restore/samples_per_second", "restore/data_share", "restore/mfu"}
    assert tags >= {"restore/proportions/low_light", "restore/validation/low_light/0", "restore/validation/low_light/1"}
    assert tags >= {f"restore/experts/low_light/{expert}" for expert in ("spatial", "channel", "sparse_channel")}
    (loss,) = found.Scalars("restore/loss")
    assert loss.step == 4  # samples, not updates: stages of other batch sizes can be compared
    (picture,) = found.Images("restore/low_light")
    assert (picture.width, picture.height, picture.step) == (96, 32, 4)  # input, output, truth
