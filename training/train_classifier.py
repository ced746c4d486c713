"""Trains what `foundir diagnose` uses: `python training/train_classifier.py training/configs/classifier.yaml --data PHOTOS --output RUN`.

Run it again with the same arguments and it goes on from its last checkpoint.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from foundir_hf.training.classifier import ClassifierConfig, train_classifier


def main() -> None:
    parser = argparse.ArgumentParser(description="Trains the classifier of degradations; run again, it goes on from its last checkpoint.")
    parser.add_argument("recipe", type=Path, help="YAML file, see training/configs/classifier.yaml")
    parser.add_argument("--data", type=Path, required=True, help="folder of clean photographs")
    parser.add_argument("--output", type=Path, required=True, help="run folder: checkpoint, log, classifier, report")
    parser.add_argument("--manifest", type=Path, help="of `foundir clean`: which photographs came with defects")
    parser.add_argument("--test", type=Path, help="folder of other clean photographs for the report")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    try:
        config = ClassifierConfig.from_yaml(arguments.recipe)
        train_classifier(config, arguments.data, arguments.output, manifest=arguments.manifest, test=arguments.test)
    except (OSError, ValueError) as error:
        parser.exit(2, f"train_classifier: {error}\n")


if __name__ == "__main__":
    main()
