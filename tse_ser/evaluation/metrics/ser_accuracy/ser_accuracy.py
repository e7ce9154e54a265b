"""Weighted and unweighted accuracy of speech emotion recognition, with the confusion matrix."""

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate
import numpy as np

_DESCRIPTION = """
The two accuracies of the speech emotion literature. Weighted accuracy (WA) is the share of
utterances recognised; unweighted accuracy (UA) is the mean of the recalls of the classes, so that
a rare emotion counts as much as a frequent one. The confusion matrix comes with them.
"""

_CITATION = """
@inproceedings{schuller2009interspeech,
  author    = {Schuller, Bj{\\"o}rn and Steidl, Stefan and Batliner, Anton},
  title     = {The {INTERSPEECH} 2009 Emotion Challenge},
  booktitle = {Interspeech},
  pages     = {312--315},
  year      = {2009}
}
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions (list of int): predicted class of each utterance.
    references (list of int): true class of each utterance.
    labels (optional list of int): the classes, in the order of the rows and columns returned.
    num_classes (optional int): short for `labels=range(num_classes)`; give one of the two or none.
        Without either, the classes are those that occur, sorted.
Returns:
    wa (float): correct predictions over all predictions, 0 to 1.
    ua (float): mean of the recalls of the classes that occur in `references`, 0 to 1.
    per_class_recall (list of float or None): recall of each class; None where it never occurs.
    confusion (list of list of int): utterances of true class (row) given each class (column).
Examples:
    >>> import evaluate
    >>> ser_accuracy = evaluate.load("tse_ser/evaluation/metrics/ser_accuracy")
    >>> ser_accuracy.compute(predictions=[0, 0, 0, 1], references=[0, 0, 1, 1], num_classes=2)
    {'wa': 0.75, 'ua': 0.75, 'per_class_recall': [1.0, 0.5], 'confusion': [[2, 0], [1, 1]]}
"""


def emotion_accuracies(
    predictions: Sequence[int], references: Sequence[int], labels: Sequence[int] | None = None
) -> dict[str, Any]:
    """WA, UA, recall of each class and confusion matrix.

    Args:
        predictions (sequence of `num_examples` ints): predicted classes.
        references (sequence of `num_examples` ints): true classes.
        labels (sequence of ints, optional): the classes, in order; default: those that occur.

    Returns:
        `{"wa", "ua", "per_class_recall", "confusion"}`; UA is over the classes that occur in
        `references`, an absent class has the recall None.

    Raises:
        ValueError: no example, lengths that differ, a class given twice or one outside `labels`.

    Source:
        section III-C of the paper.
    """
    predicted = np.asarray(predictions, dtype=np.int64)
    true = np.asarray(references, dtype=np.int64)
    if predicted.shape != true.shape or true.ndim != 1 or true.size == 0:
        raise ValueError(
            "Expected as many predictions as references, one or more, each a class: "
            f"got shapes {predicted.shape} and {true.shape}."
        )
    classes = np.union1d(predicted, true) if labels is None else np.asarray(labels, dtype=np.int64)
    confusion = _confusion_matrix(predicted, true, classes)
    support = confusion.sum(axis=1)
    recalls = [
        float(confusion[row, row] / count) if count else None for row, count in enumerate(support)
    ]
    return {
        "wa": float(np.trace(confusion) / confusion.sum()),
        "ua": float(np.mean([recall for recall in recalls if recall is not None])),
        "per_class_recall": recalls,
        "confusion": confusion.tolist(),
    }


def _confusion_matrix(predicted: np.ndarray, true: np.ndarray, classes: np.ndarray) -> np.ndarray:
    if np.unique(classes).size != classes.size:
        raise ValueError(f"A class occurs twice in labels: {classes.tolist()}.")
    unknown = np.setdiff1d(np.union1d(predicted, true), classes)
    if unknown.size:
        raise ValueError(
            f"Classes {unknown.tolist()} are not among the labels {classes.tolist()}: "
            "leave out unlabelled utterances (-100), or name every class in labels."
        )
    index = {int(label): position for position, label in enumerate(classes)}
    confusion = np.zeros((classes.size, classes.size), dtype=np.int64)
    for reference, prediction in zip(true, predicted, strict=True):
        confusion[index[int(reference)], index[int(prediction)]] += 1
    return confusion


class SerAccuracy(evaluate.Metric):
    """Weighted and unweighted accuracy with per-class recalls and the confusion matrix."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features(
                {
                    "predictions": datasets.Value("int64"),
                    "references": datasets.Value("int64"),
                }
            ),
            reference_urls=[
                "https://www.isca-archive.org/interspeech_2009/schuller09_interspeech.html"
            ],
        )

    def _compute(
        self,
        predictions: Sequence[int],
        references: Sequence[int],
        labels: Sequence[int] | None = None,
        num_classes: int | None = None,
    ) -> dict[str, Any]:
        if labels is not None and num_classes is not None:
            raise ValueError("Give labels or num_classes, not both.")
        if num_classes is not None:
            labels = range(num_classes)
        return emotion_accuracies(predictions, references, labels)
