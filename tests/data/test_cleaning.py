from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from foundir_hf.curation.cleaning import (
    DEFAULT_RULES,
    DEFECTS,
    DROP,
    Rule,
    Verdict,
    catches,
    clean,
    judge,
    load_rules,
    read_manifest,
    write_manifest,
)
from foundir_hf.curation.duplicates import BITS, fingerprint, nearest_earlier
from foundir_hf.curation.quality import SCORES
from foundir_hf.data.degradations.blur import defocus_blur
from foundir_hf.data.degradations.compression import jpeg
from foundir_hf.data.degradations.haze import haze
from foundir_hf.data.degradations.illumination import low_light
from foundir_hf.data.degradations.noise import gaussian_noise
from foundir_hf.data.tasks import TASKS
from foundir_hf.evaluation.demo import SAMPLES
from foundir_hf.io.folder import list_photos

DARK = Rule("darkness", "darkness", "dark", above=2)
SMALL = Rule("short_side", DROP, "tiny", below=100)


def photo(name: str) -> torch.Tensor:
    with Image.open(SAMPLES / f"{name}.jpg") as image:
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def save(path: Path, pixels: torch.Tensor, **options) -> Path:
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(path, **options)
    return path


def damaged(name: str, degradation, **ranges) -> torch.Tensor:
    images = degradation(photo(name)[None].float() / 255, torch.Generator().manual_seed(0), **ranges)
    return (images[0] * 255).round().to(torch.uint8)


# --- Rules ---


def test_a_rule_matches_strictly_on_its_side_of_the_threshold():
    assert [DARK.matches(value) for value in (1.9, 2.0, 2.1)] == [False, False, True]
    assert [SMALL.matches(value) for value in (99, 100, 101)] == [True, False, False]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"score": "noise", "verdict": "grain", "reason": "r", "above": 1}, "`verdict` must be one of noise, .*, drop; got 'grain'"),
        ({"score": "noise", "verdict": "noise", "reason": "r"}, "exactly one of `above` and `below` must be a number, got None and None"),
        ({"score": "noise", "verdict": "noise", "reason": "r", "above": 1, "below": 2}, "exactly one of"),
        ({"score": "noise", "verdict": "noise", "reason": "r", "above": "high"}, "must be a number, got 'high'"),
        ({"score": "noise", "verdict": "noise", "reason": "r", "above": float("nan")}, "must be a number, got nan"),
        ({"score": "noise", "verdict": "noise", "reason": "r", "above": True}, "must be a number, got True"),
        ({"score": "", "verdict": "noise", "reason": "r", "above": 1}, "`score` and `reason` must be text"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(fields, said):
    with pytest.raises(ValueError, match=said):
        Rule(**fields)


def test_judging_collects_defects_in_a_fixed_order_each_once_with_every_reason():
    rules = [
        DARK,
        Rule("blur", "blur", "soft", above=1),
        Rule("softness", "blur", "bokeh", above=0.5),
        Rule("noise", "noise", "grain", above=9),
    ]
    verdict = judge({"darkness": 3, "blur": 1.5, "softness": 0.75, "noise": 1}, rules)
    assert not verdict.dropped
    assert verdict.defects == ("blur", "darkness")
    assert verdict.reasons == ("dark: darkness 3 is above 2", "soft: blur 1.5 is above 1", "bokeh: softness 0.75 is above 0.5")
    assert judge({"darkness": 0, "short_side": 50}, [DARK, SMALL]) == Verdict(
        True, (), ("tiny: short_side 50 is below 100",), {"darkness": 0, "short_side": 50}
    )


def test_a_rule_on_an_unknown_score_is_told_before_anything_is_decoded(tmp_path):
    rule = Rule("musiq", DROP, "ugly", below=40)
    with pytest.raises(ValueError, match=r"score 'musiq', which is not computed; there are short_side, noise, .*nearest"):
        clean([tmp_path / "absent.png"], [rule])
    with pytest.raises(ValueError, match="'musiq'"):
        judge({"noise": 1}, [rule])


def test_the_built_in_rules_cover_every_defect_and_nothing_else():
    rules = load_rules()
    assert {rule.verdict for rule in rules} == {*DEFECTS, DROP}
    assert {rule.score for rule in rules} <= {*SCORES, "nearest"}


def test_every_defect_is_something_that_a_task_removes():
    removed = {name for task in TASKS.values() for name in task.removes}
    assert set(DEFECTS) <= removed


def test_rules_are_read_from_yaml(tmp_path):
    path = tmp_path / "rules.yaml"
    path.write_text(
        "- {score: noise, above: 3, verdict: noise, reason: grain}\n- {score: short_side, below: 9, verdict: drop, reason: tiny}\n"
    )
    assert load_rules(path) == (Rule("noise", "noise", "grain", above=3), Rule("short_side", "drop", "tiny", below=9))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[", "is not YAML"),
        ("", "it should be a valid list, got None"),
        ("a: 1", "it should be a valid list, got {'a': 1}"),
        ("[]", "at least one rule"),
        ("[" * 3000, "is not YAML: .*recursion"),
        ("- 2024-13-01", "is not YAML: month must be in 1..12"),
        ("- {score: noise, above: 1" + 400 * "0" + ", verdict: noise, reason: grain}", r"`\[0\]\.above` .*number"),
        ("- {score: noise, above: 0x1" + 9000 * "0" + ", verdict: noise, reason: grain}", "thousands of digits"),
        ("- 7", r"`\[0\]` should be .* Rule, got 7"),
        (
            "- {score: noise, above: 3, verdict: noise, reason: grain}\n- {score: noise, above: 3, verdict: noise}",
            r"`\[1\]\.reason` is missing",
        ),
        (
            "- {score: noise, over: 3, verdict: noise, reason: grain}",
            r"`\[0\]\.over` is unknown; accepted are score, verdict, reason, above, below",
        ),
        ("- {score: noise, above: 3, verdict: fog, reason: grain}", r"`\[0\]`: `verdict` must be one of"),
    ],
)
def test_a_wrong_rules_file_is_named_with_the_rule(tmp_path, text, said):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"(?s)mine\.yaml: .*{said}"):
        load_rules(path)


# --- Cleaning ---


@pytest.mark.parametrize(
    ("defect", "name", "degradation", "ranges"),
    [
        ("noise", "coffee", gaussian_noise, {"sigma": (15, 15)}),
        ("blur", "astronaut", defocus_blur, {"radius": (3, 3)}),
        ("compression", "coffee", jpeg, {"quality": (20, 20)}),
        ("haze", "chelsea", haze, {"density": (1.5, 1.5)}),
        ("darkness", "coffee", low_light, {"exposure": (0.1, 0.1), "noise": (0, 0)}),
    ],
)
def test_the_built_in_rules_find_damage_and_pass_the_photograph_before_it(tmp_path, defect, name, degradation, ranges):
    before, after = clean([SAMPLES / f"{name}.jpg", save(tmp_path / "after.png", damaged(name, degradation, **ranges))], load_rules())
    assert defect not in before.defects
    assert defect in after.defects
    assert not before.dropped


def test_the_built_in_rules_drop_none_of_the_samples():
    assert not any(verdict.dropped for verdict in clean(list_photos(SAMPLES), load_rules()))


def test_files_that_cannot_be_decoded_are_rows_with_a_reason(tmp_path):
    good = save(tmp_path / "good.png", photo("coffee")[:, :128, :128])
    text, cut, flipped = tmp_path / "text.png", tmp_path / "cut.jpg", tmp_path / "flipped.png"
    text.write_text("no picture")
    save(cut, photo("coffee"))
    cut.write_bytes(cut.read_bytes()[:3000])
    data = bytearray(good.read_bytes())
    data[len(data) // 2] ^= 0xFF
    flipped.write_bytes(bytes(data))
    verdicts = clean([text, good, cut, flipped, tmp_path / "absent.png"], [DARK])
    assert [verdict.dropped for verdict in verdicts] == [True, False, True, True, True]
    assert all(len(verdict.reasons) == 1 and verdict.reasons[0] and not verdict.scores for verdict in verdicts if verdict.dropped)
    assert "not an image" in verdicts[0].reasons[0]
    assert "no such file" in verdicts[4].reasons[0]


def test_cleaning_changes_no_file_and_does_not_depend_on_the_number_of_workers(tmp_path):
    for name in ("coffee", "rocket"):
        save(tmp_path / f"{name}.png", photo(name)[:, :160, :160])
    before = {path: (hashlib.sha256(path.read_bytes()).digest(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()}
    paths = sorted(before)
    assert clean(paths, load_rules(), workers=2) == clean(paths, load_rules())
    assert {path: (hashlib.sha256(path.read_bytes()).digest(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()} == before


def test_further_metrics_see_the_pixels_and_feed_rules(tmp_path):
    path = save(tmp_path / "a.png", torch.full((3, 20, 30), 7, dtype=torch.uint8))
    [verdict] = clean([path], [Rule("level", DROP, "low", below=8)], metrics={"level": lambda pixels: pixels.float().mean().item()})
    assert verdict.scores["level"] == 7
    assert verdict.reasons == ("low: level 7 is below 8",)


def test_of_near_duplicates_the_first_stays_and_the_reason_names_it(tmp_path):
    original = photo("coffee")
    smaller = torch.nn.functional.interpolate(original[None].float(), scale_factor=0.5, mode="bilinear", antialias=True)[0]
    paths = [
        save(tmp_path / "a.png", original),
        save(tmp_path / "b.png", photo("rocket")),
        save(tmp_path / "c.jpg", smaller.round().clamp(0, 255).to(torch.uint8), quality=40),
    ]
    rule = Rule("nearest", DROP, "near-duplicate", below=12)
    verdicts = clean(paths, [rule])
    assert [verdict.dropped for verdict in verdicts] == [False, False, True]
    assert verdicts[2].reasons[0].endswith("is below 12 (a.png)")
    assert verdicts[0].scores["nearest"] == BITS
    assert verdicts[1].scores["nearest"] > 60
    assert catches(rule, [*verdicts, Verdict(True, reasons=("unreadable",))]) == 1


def test_distances_count_bits_to_the_closest_earlier_fingerprint():
    zero, one = np.zeros(4, np.uint64), np.array([0, 0, 0, 7], np.uint64)
    assert nearest_earlier([zero, ~zero, one, one]) == [(BITS, None), (BITS, 0), (3, 0), (0, 2)]
    assert nearest_earlier([]) == []
    assert fingerprint(photo("coffee")).shape == (4,)


# --- The manifest ---

VERDICTS = {
    "deep/fog.jpg": Verdict(False, ("haze",), ("veiled: haze 0.5 is above 0.4",), {"haze": 0.5}),
    "ä b.png": Verdict(False, (), (), {"haze": 0.125}),
    "broken.jpg": Verdict(True, (), ("not an image of a known format",)),
}


def test_a_manifest_is_read_as_it_was_written_with_rules_and_version(tmp_path):
    path = tmp_path / "manifest.json"
    write_manifest(path, VERDICTS, [DARK, SMALL])
    assert read_manifest(path) == VERDICTS
    data = json.loads(path.read_text(encoding="utf-8"))
    assert data["version"] == 1
    assert [Rule(**rule) for rule in data["rules"]] == [DARK, SMALL]


def test_scores_are_written_to_six_digits(tmp_path):
    write_manifest(tmp_path / "m.json", {"a.png": Verdict(False, scores={"haze": 1 / 3})}, [])
    assert read_manifest(tmp_path / "m.json")["a.png"].scores == {"haze": 0.333333}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "version 1, got version None"),
        ('{"version": 2, "photos": {}}', "version 1, got version 2"),
        ('{"version": 1, "photos": []}', "`photos` must map file names to verdicts, got list"),
        ('{"version": 1, "photos": {"a.png": {"dropped": false}}}', "'a.png': must hold `dropped`"),
        ('{"version": 1, "photos": {"a.png": {"dropped": 0, "defects": [], "reasons": [], "scores": {}}}}', "'a.png': must hold"),
        ('{"version": 1, "photos": {"a.png": {"dropped": false, "defects": ["fog"], "reasons": [], "scores": {}}}}', "got 'fog'"),
    ],
)
def test_what_is_no_manifest_is_refused_by_name(tmp_path, text, said):
    path = tmp_path / "m.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"m\.json: .*{said}"):
        read_manifest(path)


def test_the_built_in_rules_are_a_file_beside_the_module():
    assert DEFAULT_RULES.is_file()
