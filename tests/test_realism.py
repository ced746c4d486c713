"""What benchmarks/realism.py and benchmarks/blind.py make of features and verdicts."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from blind import count
from realism import told_apart


def test_what_is_alike_is_told_apart_by_chance_and_what_differs_always():
    random = np.random.default_rng(0)
    real, made = random.normal(size=(40, 20)), random.normal(size=(40, 3, 20))
    assert 0.3 < told_apart(real, made) < 0.7
    made[..., 4] += 8
    assert told_apart(real, made) == 1


def test_verdicts_are_counted_by_the_key(tmp_path):
    key, verdicts = tmp_path / "key.csv", tmp_path / "verdicts.csv"
    key.write_text("number,photograph,restored\n1,a.png,A\n2,b.png,B\n3,c.png,A\n")
    verdicts.write_text("1,A\n2,A\n3,=\n")
    assert [row[2] for row in count(verdicts, key)] == ["preferred", "restored", "input", "="]
    verdicts.write_text("1,A\n2,C\n3,=\n")
    with pytest.raises(ValueError, match=r"`verdicts` must say A, B or = of pair 2, got 'C'\."):
        count(verdicts, key)
