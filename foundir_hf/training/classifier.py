"""Training of the classifier of degradations: its recipe, the loop, the calibration of its probabilities, and what it is worth."""

from __future__ import annotations

import json
import logging
import math
import shutil
import time
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.utils import set_seed
from tqdm.auto import tqdm

from ..curation.cleaning import Verdict, read_manifest
from ..data.labelled import LabelledSource
from ..data.memory import InMemoryPhotographs
from ..data.sources import CleanFiles
from ..io.folder import list_photos
from ..io.yaml_files import STRICT_KEYS, read_yaml
from ..models.degradation_classifier_foundir import FoundIRDegradationClassifier
from .checkpoints import find_checkpoint
from .loop import learning_rate_factor

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ClassifierConfig:
    """A recipe.

    Args:
        defects: What to tell apart; every name in `removes` of the task table.
        steps: Updates.
        learning_rate: Peak rate; warmed up over `warmup_steps`, then a cosine to a hundredth.
        batch_size: Photographs an update.
        sizes: Sides of the photographs, one drawn for each batch.
        crops: Crops that the classifier sees of each; in use it sees more.
        weight_decay: AdamW's.
        mixed_precision: `"no"` or `"bf16"`, which processors with bfloat16 arithmetic like.
        checkpoint_minutes: How often the training state is written.
        validation_batches, calibration_batches, report_batches: Of held-out photographs, for the log, the probabilities and the report.
        seed: Of everything random.
    """

    defects: tuple[str, ...]
    steps: int
    learning_rate: float = 2e-3
    warmup_steps: int = 50
    batch_size: int = 24
    sizes: tuple[int, ...] = (144, 192, 256)
    crops: int = 2
    weight_decay: float = 1e-2
    mixed_precision: str = "no"
    checkpoint_minutes: float = 4.0
    validation_batches: int = 5
    calibration_batches: int = 60
    report_batches: int = 120
    seed: int = 0

    __pydantic_config__ = STRICT_KEYS

    @classmethod
    def from_yaml(cls, path: str | Path) -> ClassifierConfig:
        """Reads a recipe; raises `ValueError` naming the file and the key that is wrong."""
        return read_yaml(path, cls)


def train_classifier(
    config: ClassifierConfig, data: Path, output: Path, *, manifest: Path | None = None, test: Path | None = None
) -> FoundIRDegradationClassifier:
    """Trains and calibrates a classifier; an interrupted run goes on from its last checkpoint.

    Args:
        config: The recipe.
        data: Folder of clean photographs; with a `manifest.csv`, its splits `train` and `val` are used.
        output: Run folder: `checkpoint-*` (training state), `log.jsonl`, `classifier` (configuration and weights in half precision),
            `report.json` (of [`measure`]) and `report.md`.
        manifest: Of `foundir clean`: of photographs that came with a defect, the label of that defect is not trusted.
        test: Folder of photographs for the report; left out, those that calibrate.
    """
    output.mkdir(parents=True, exist_ok=True)
    set_seed(config.seed)
    accelerator = Accelerator(mixed_precision=config.mixed_precision)
    verdicts = {} if manifest is None else read_manifest(manifest)
    source = _source(config, data, "train", verdicts, accelerator.device, config.seed)
    validation = _source(config, data, "val", verdicts, accelerator.device, config.seed + 1)

    model = FoundIRDegradationClassifier(defects=config.defects).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, partial(learning_rate_factor, steps=config.steps, warmup_steps=config.warmup_steps)
    )
    model, optimizer = accelerator.prepare(model, optimizer)
    accelerator.register_for_checkpointing(schedule)
    first, resumed = 0, find_checkpoint(output)
    if resumed is not None:
        accelerator.load_state(str(resumed))
        first = int(resumed.name.removeprefix("checkpoint-"))
        logger.info("Going on from %s", resumed)

    last, smooth = time.monotonic(), None
    for step in tqdm(range(first, config.steps), initial=first, total=config.steps, mininterval=10, desc="classifier"):
        # Everything random in a step follows from its number, so a resumed run sees what an uninterrupted one sees.
        generator = source.generator(step)
        torch.manual_seed(config.seed * 1_000_003 + step)  # dropout
        model.train()
        batch = source.batch(generator)
        detail, overview = model.views(batch.images, config.crops, generator)
        with accelerator.autocast():
            log_odds = model(detail, overview)
        loss = F.binary_cross_entropy_with_logits(log_odds.float(), batch.labels, weight=batch.known.float())
        if not math.isfinite(loss.item()):
            raise FloatingPointError(f"step {step}: the loss is not finite. The last checkpoint is whole.")
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        smooth = loss.item() if smooth is None else 0.97 * smooth + 0.03 * loss.item()
        if (step + 1) % 25 == 0:
            _log(output, step=step + 1, loss=round(smooth, 5))
        if step + 1 < config.steps and time.monotonic() - last >= 60 * config.checkpoint_minutes:
            _save_checkpoint(accelerator, output, step + 1)
            rows = measure(model, validation, config.validation_batches)
            _log(output, step=step + 1, validation={row["defect"]: row["auc"] for row in rows})
            last = time.monotonic()
    _save_checkpoint(accelerator, output, config.steps)

    calibrate(model, validation, config.calibration_batches)
    held_out = validation if test is None else _source(config, test, None, {}, accelerator.device, config.seed + 2)
    # Those that calibrated came from the first numbers of the stream.
    rows = measure(model, held_out, config.report_batches, first=config.calibration_batches)
    (output / "report.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    (output / "report.md").write_text(to_table(rows) + "\n", encoding="utf-8")
    deepcopy(model).half().save_pretrained(output / "classifier")
    return model


@torch.no_grad()
def predict(
    model: FoundIRDegradationClassifier, source: LabelledSource, batches: int, first: int = 0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Log-odds, labels, and which labels are known, of `batches` batches from number `first`: `(photographs, defects)`, seen as in use."""
    model.eval()
    log_odds, labels, known = [], [], []
    for step in range(first, first + batches):
        batch = source.batch(source.generator(step))
        log_odds.append(model(*model.views(batch.images)).float())
        labels.append(batch.labels)
        known.append(batch.known)
    return torch.cat(log_odds), torch.cat(labels), torch.cat(known)


def calibrate(model: FoundIRDegradationClassifier, source: LabelledSource, batches: int) -> None:
    """Makes the probabilities honest: a temperature and an offset a defect, fitted on held-out photographs, folded into the last layer.

    Platt scaling (Advances in Large Margin Classifiers, 1999); with the temperature alone it is that of Guo et al., ICML 2017. The
    probabilities then hold for photographs as damaged as those of `source`, where a defect is as frequent as it is there.
    """
    log_odds, labels, known = predict(model, source, batches)
    scale, shift = torch.zeros(labels.shape[1], requires_grad=True), torch.zeros(labels.shape[1], requires_grad=True)
    optimizer = torch.optim.LBFGS([scale, shift], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        # A little weight decay: with few photographs a defect can be separable, and its best temperature 0.
        loss = F.binary_cross_entropy_with_logits(log_odds * scale.exp() + shift, labels, weight=known.float())
        loss = loss + 1e-4 * (scale.square() + shift.square()).mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    with torch.no_grad():
        model.out.weight.mul_(scale.exp()[:, None])
        model.out.bias.mul_(scale.exp()).add_(shift)


def measure(model: FoundIRDegradationClassifier, source: LabelledSource, batches: int, first: int = 0) -> list[dict]:
    """One row a defect and `mean` last: photographs that have it, AUC, average precision; accuracy, precision, recall at 50 %; Brier score.

    A figure that needs both photographs with and without the defect is `None` where there are none.
    """
    log_odds, labels, known = predict(model, source, batches, first)
    rows = []
    for index, defect in enumerate(model.config.defects):
        sure = known[:, index]
        scores, truth = log_odds[sure, index], labels[sure, index] > 0.5
        flagged = scores > 0
        row = {
            "defect": defect,
            "photos": int(truth.sum()),
            "auc": area_under_curve(scores, truth),
            "average_precision": average_precision(scores, truth),
            "accuracy": float((flagged == truth).float().mean()),
            "precision": float(truth[flagged].float().mean()) if flagged.any() else None,
            "recall": float(flagged[truth].float().mean()) if truth.any() else None,
            "brier": float((torch.sigmoid(scores) - truth.float()).square().mean()),
        }
        rows.append({key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()})
    mean = {"defect": "mean", "photos": len(labels)}
    for key in list(rows[0])[2:]:
        values = [row[key] for row in rows if row[key] is not None]
        mean[key] = round(sum(values) / len(values), 4) if values else None
    return [*rows, mean]


def to_table(rows: list[dict]) -> str:
    """A Markdown table of [`measure`]'s rows; a figure that there is none of is a dash."""
    columns = ("auc", "average_precision", "accuracy", "precision", "recall", "brier")
    lines = [
        "| defect | photographs | AUC | average precision | accuracy | precision | recall | Brier |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = ["-" if row[key] is None else f"{row[key]:.3f}" for key in columns]
        lines.append(f"| {row['defect']} | {row['photos']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def area_under_curve(scores: torch.Tensor, truth: torch.Tensor) -> float | None:
    """How often a photograph with the defect scores above one without it, ties counting half (Mann and Whitney, 1947)."""
    positive, negative = scores[truth].double(), scores[~truth].double().sort().values
    if not len(positive) or not len(negative):
        return None
    below, upto = torch.searchsorted(negative, positive), torch.searchsorted(negative, positive, right=True)
    return float((below + upto).double().mean() / (2 * len(negative)))


def average_precision(scores: torch.Tensor, truth: torch.Tensor) -> float | None:
    """The mean of the precision at every photograph that has the defect, in order of falling scores; of ties, those without come first."""
    if not truth.any():
        return None
    order = sorted(range(len(scores)), key=lambda i: (-float(scores[i]), bool(truth[i])))
    hits = truth[order].double()
    precision = hits.cumsum(0) / torch.arange(1, len(hits) + 1)
    return float(precision[hits > 0].mean())


def _source(
    config: ClassifierConfig, folder: Path, split: str | None, verdicts: Mapping[str, Verdict], device: torch.device, seed: int
) -> LabelledSource:
    paths = list_photos(folder, split)
    paths = [path for path in paths if not getattr(verdicts.get(path.relative_to(folder).as_posix()), "dropped", False)]
    photos = InMemoryPhotographs(CleanFiles(paths, folder), device)
    return LabelledSource(photos, config.defects, config.batch_size, config.sizes, verdicts=verdicts, seed=seed)


def _save_checkpoint(accelerator: Accelerator, output: Path, step: int) -> None:
    """Writes the training state; it gets its final name when it is whole, and replaces the one before."""
    older, unfinished = list(output.glob("checkpoint-*")), output / "unfinished-checkpoint"
    final = output / f"checkpoint-{step:08d}"
    if final in older:
        return
    accelerator.save_state(str(unfinished))
    unfinished.rename(final)
    for folder in older:
        shutil.rmtree(folder)


def _log(output: Path, **values) -> None:
    with (output / "log.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"time": round(time.time()), **values}) + "\n")
