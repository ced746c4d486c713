"""Training of the classifier: recipes, resuming, calibration, and figures that equal their definitions."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from foundir_hf.curation.cleaning import Verdict, write_manifest
from foundir_hf.data.labelled import LabelledSource
from foundir_hf.data.memory import InMemoryPhotographs
from foundir_hf.data.tasks import TASKS
from foundir_hf.models.degradation_classifier_foundir import FoundIRDegradationClassifier
from foundir_hf.training.classifier import (
    ClassifierConfig,
    area_under_curve,
    average_precision,
    calibrate,
    measure,
    predict,
    to_table,
    train_classifier,
)

RECIPE = Path(__file__).parents[2] / "training" / "configs" / "classifier.yaml"
DEFECTS = tuple(dict.fromkeys(defect for task in TASKS.values() for defect in task.removes))
CONFIG = ClassifierConfig(
    DEFECTS,
    steps=4,
    warmup_steps=1,
    batch_size=3,
    sizes=(24,),
    crops=1,
    checkpoint_minutes=0,
    validation_batches=1,
    calibration_batches=2,
    report_batches=2,
)


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("run")
    train_classifier(CONFIG, data, output)
    return output


def tiny_classifier() -> FoundIRDegradationClassifier:
    return FoundIRDegradationClassifier(
        DEFECTS, crop_size=16, overview_size=16, detail_channels=(8, 8), overview_channels=(8, 8), hidden_size=16
    ).eval()


def stream(data: Path, **options) -> LabelledSource:
    return LabelledSource(InMemoryPhotographs(sorted(data.glob("*.png"))), DEFECTS, 8, (24,), **options)


def test_the_recipe_that_ships_lists_every_defect_of_the_task_table_once():
    config = ClassifierConfig.from_yaml(RECIPE)
    assert sorted(config.defects) == sorted(DEFECTS)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- noise", r"it should be a dictionary .* got \['noise'\]"),
        ("steps: 3\ndefects: [noise]\ncolour: red", "`colour` is unknown"),
        ("steps: 3", "`defects` is missing"),
    ],
)
def test_a_wrong_recipe_is_named_with_what_is_wrong(tmp_path, text, said):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=said) as error:
        ClassifierConfig.from_yaml(path)
    assert str(path) in str(error.value)


def test_a_run_leaves_a_classifier_in_half_precision_a_report_and_a_log(finished):
    classifier = FoundIRDegradationClassifier.from_pretrained(finished / "classifier")
    assert tuple(classifier.config.defects) == DEFECTS
    weights = load_file(finished / "classifier" / "diffusion_pytorch_model.safetensors")
    assert {value.dtype for name, value in weights.items() if "num_batches" not in name} == {torch.float16}
    report = json.loads((finished / "report.json").read_text())
    assert [row["defect"] for row in report] == [*DEFECTS, "mean"]
    assert report[-1]["photos"] == 6
    assert (finished / "report.md").read_text() == to_table(report) + "\n"
    rows = [json.loads(line) for line in (finished / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "validation" in row] == [1, 2, 3]
    assert [p.name for p in finished.glob("*checkpoint*")] == ["checkpoint-00000004"]


def test_an_interrupted_run_ends_with_the_same_weights(data, finished, tmp_path, monkeypatch):
    batch, seen = LabelledSource.batch, []

    def interrupted(self, generator):
        seen.append(None)
        if len(seen) > 4:  # two steps and the validation batch after each
            raise KeyboardInterrupt
        return batch(self, generator)

    with monkeypatch.context() as patch:
        patch.setattr(LabelledSource, "batch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train_classifier(CONFIG, data, tmp_path)
    assert [p.name for p in tmp_path.glob("checkpoint-*")] == ["checkpoint-00000002"]
    train_classifier(CONFIG, data, tmp_path)
    expected, resumed = (FoundIRDegradationClassifier.from_pretrained(f / "classifier").state_dict() for f in (finished, tmp_path))
    for name, value in expected.items():
        torch.testing.assert_close(resumed[name], value, msg=name)
    assert (tmp_path / "report.json").read_text() == (finished / "report.json").read_text()


def test_a_manifest_drops_photographs_and_distrusts_their_labels(data, tmp_path, monkeypatch):
    write_manifest(tmp_path / "m.json", {"a.png": Verdict(True), "b.png": Verdict(False, ("haze",)), "c.png": Verdict(False)}, ())
    batch, seen = LabelledSource.batch, []

    def spied(self, generator):
        result = batch(self, generator)
        seen.append((len(self.photos), result))
        return result

    monkeypatch.setattr(LabelledSource, "batch", spied)
    train_classifier(replace(CONFIG, checkpoint_minutes=9), data, tmp_path / "run", manifest=tmp_path / "m.json")
    haze = DEFECTS.index("haze")
    training = [result for _, result in seen[:4]]
    assert {photos for photos, _ in seen} == {1}  # of the three, one is dropped and one is for validation
    assert all(torch.equal(result.known[:, haze], result.labels[:, haze] > 0) for result in training)
    assert all(result.known[:, [i for i in range(len(DEFECTS)) if i != haze]].all() for result in training)
    assert all(result.known.all() for _, result in seen[4:])


def test_unknown_labels_decide_nothing(data):
    model = tiny_classifier()
    source = stream(data, verdicts={str(p): Verdict(False, ("haze",)) for p in data.glob("*.png")})
    row = next(row for row in measure(model, source, 3) if row["defect"] == "haze")
    assert row["photos"] > 0
    assert row["auc"] is None  # no photograph is known to be without
    assert row["average_precision"] == 1


def test_a_classifier_learns_what_is_plain_to_see(data):
    """Darkness in a few dozen updates."""
    torch.manual_seed(0)
    model, source = tiny_classifier().train(), stream(data, rows_shares=(0.2, 0.8))
    index = DEFECTS.index("darkness")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(40):
        batch = source.batch(source.generator(step))
        loss = F.binary_cross_entropy_with_logits(model(*model.views(batch.images))[:, index], batch.labels[:, index])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    row = measure(model, source, 12, first=1000)[index]
    assert row["auc"] > 0.7


def test_calibration_mends_overconfidence_and_keeps_the_order(data):
    torch.manual_seed(0)
    model, source = tiny_classifier(), stream(data)
    with torch.no_grad():
        model.out.weight.mul_(30)
        model.out.bias.add_(2)

    def loss() -> float:
        log_odds, labels, _ = predict(model, source, 6)
        return float(F.binary_cross_entropy_with_logits(log_odds, labels))

    before, order = loss(), predict(model, source, 6)[0].argsort(dim=0)
    calibrate(model, source, 6)
    log_odds, labels, _ = predict(model, source, 6)
    assert loss() < 0.6 * before
    assert torch.equal(log_odds.argsort(dim=0), order)
    # Of all photographs as many have a defect as the probabilities say.
    torch.testing.assert_close(torch.sigmoid(log_odds).mean(dim=0), labels.mean(dim=0), atol=0.02, rtol=0)


@pytest.mark.parametrize("seed", range(4))
def test_the_area_is_the_share_of_pairs_in_the_right_order(seed):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randint(6, (40,), generator=generator).float()  # with ties
    truth = torch.rand(40, generator=generator) < 0.4
    pairs = scores[truth][:, None] - scores[~truth][None]
    assert area_under_curve(scores, truth) == pytest.approx(float(((pairs > 0) + 0.5 * (pairs == 0)).float().mean()))


def test_the_area_needs_both_kinds():
    assert area_under_curve(torch.tensor([0.1, 0.2]), torch.tensor([True, True])) is None
    assert area_under_curve(torch.tensor([0.1, 0.2]), torch.tensor([False, False])) is None


@pytest.mark.parametrize(
    ("truth", "expected"),
    [
        ([1, 1, 0, 0], 1.0),
        ([1, 0, 1, 0], (1 + 2 / 3) / 2),
        ([0, 0, 0, 1], 1 / 4),
        ([0, 1, 0, 1], (1 / 2 + 2 / 4) / 2),
    ],
)
def test_average_precision_is_the_mean_precision_at_every_hit(truth, expected):
    scores = torch.tensor([0.9, 0.7, 0.3, 0.1])
    assert average_precision(scores, torch.tensor(truth).bool()) == pytest.approx(expected)


def test_average_precision_of_nothing_is_nothing_and_ties_count_against():
    assert average_precision(torch.tensor([0.5, 0.4]), torch.tensor([False, False])) is None
    assert average_precision(torch.tensor([0.5, 0.5]), torch.tensor([True, False])) == 0.5


def test_a_table_has_a_line_a_defect_and_dashes_for_what_could_not_be_measured():
    row = {
        "defect": "rain",
        "photos": 2,
        "auc": 0.98765,
        "average_precision": 0.5,
        "accuracy": 1.0,
        "precision": None,
        "recall": 0.0,
        "brier": 0.1,
    }
    assert to_table([row]).splitlines()[2:] == ["| rain | 2 | 0.988 | 0.500 | 1.000 | - | 0.000 | 0.100 |"]
