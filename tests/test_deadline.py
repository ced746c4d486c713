"""Time that a photograph may take."""

from __future__ import annotations

import threading

import pytest
import torch

from foundir_hf.io.deadline import stops_after, within


def test_what_takes_too_long_is_left_behind():
    never = threading.Event()
    with pytest.raises(TimeoutError, match=r"^reading it took longer than 0.01 seconds \(--max-seconds\)$"):
        within(0.01, never.wait, "reading it")
    never.set()


def test_what_is_done_in_time_is_returned_or_raised():
    assert within(1e9, lambda: 3, "it") == 3
    with pytest.raises(KeyError, match="why"):
        within(60, lambda: {}["why"], "it")


def test_a_module_is_not_called_after_the_end_and_may_be_again_later():
    module = torch.nn.Linear(2, 2)
    with pytest.raises(TimeoutError, match="restoring it took longer than 0 seconds"), stops_after(0, [module], "restoring it"):
        module(torch.zeros(2))
    with stops_after(60, [module], "restoring it"):
        module(torch.zeros(2))
    assert module(torch.zeros(2)).shape == (2,)
