"""Perceptual metrics: told in one line where pyiqa or its weights cannot be had; given colours in [0, 1] where they can."""

from __future__ import annotations

import sys
from types import ModuleType

import numpy as np
import pytest
import torch

from foundir_hf.evaluation.metrics import Meter
from foundir_hf.evaluation.perceptual import PERCEPTUAL, PerceptualUnavailableError


def library(create) -> ModuleType:
    """A pyiqa whose `create_metric` is `create`: the real one wants torchvision and gigabytes."""
    module = ModuleType("pyiqa")
    module.create_metric = create
    return module


@pytest.mark.parametrize("name", PERCEPTUAL)
def test_without_pyiqa_the_extra_is_named_in_one_line(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyiqa", None)
    with pytest.raises(PerceptualUnavailableError, match=r"\[iqa\]") as caught:
        Meter((name,))
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_weights_that_cannot_be_fetched_are_told_in_one_line(monkeypatch):
    def create(name, device):
        raise OSError("no route to host\nlong story")

    monkeypatch.setitem(sys.modules, "pyiqa", library(create))
    with pytest.raises(PerceptualUnavailableError, match=r"`lpips`: its weights cannot be loaded \(no route to host\)"):
        Meter(("lpips",))


def test_metrics_see_batches_in_the_unit_range_and_a_truth_only_if_they_compare(monkeypatch):
    seen = []

    def create(name, device):
        def metric(*tensors):
            seen.append((name, tensors))
            return torch.tensor([0.5])

        return metric

    monkeypatch.setitem(sys.modules, "pyiqa", library(create))
    image = np.full((12, 16, 3), 300.0)  # noise beyond white
    image[..., 0] = 51
    truth = np.zeros((12, 16, 3), np.uint8)
    meter = Meter(("lpips", "musiq"))
    values = meter.measure(image, truth, crop=2)
    assert (values["lpips"], values["musiq"]) == (0.5, 0.5)
    (first, pair), (second, single) = seen
    assert (first, len(pair), second, len(single)) == ("lpips", 2, "musiq", 1)
    assert pair[0].shape == (1, 3, 8, 12)
    assert pair[0][0, :, 0, 0].tolist() == pytest.approx([0.2, 1, 1])
    assert not pair[1].any()
    assert meter.measure(image, None) == {"psnr": None, "lpips": None, "musiq": 0.5}
