"""Scale-invariant signal-to-distortion ratio (SI-SDR) and its improvement over a mixture."""

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate
import numpy as np

_DESCRIPTION = """
SI-SDR compares an estimated waveform with its target after the best rescaling of the target, so
that a change of level costs nothing. SI-SDRi is what the estimate gains over the mixture it was
extracted from. Both are in dB and averaged over examples; higher is better.
"""

_CITATION = """
@inproceedings{leroux2019sdr,
  author    = {Le Roux, Jonathan and Wisdom, Scott and Erdogan, Hakan and Hershey, John R.},
  title     = {{SDR} -- Half-baked or Well Done?},
  booktitle = {ICASSP},
  pages     = {626--630},
  year      = {2019}
}
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions (list of 1-D arrays of `num_samples` floats): estimated waveforms.
    references (list of 1-D arrays of `num_samples` floats): target waveforms, same lengths.
    mixtures (optional list of 1-D arrays of `num_samples` floats): what the estimates were
        extracted from; adds `si_sdri`.
Returns:
    si_sdr (float): mean SI-SDR of the predictions in dB.
    si_sdri (float): mean SI-SDR improvement over the mixtures in dB, only with `mixtures`.
Examples:
    >>> import evaluate
    >>> si_sdr = evaluate.load("tse_ser/evaluation/metrics/si_sdr")
    >>> si_sdr.compute(predictions=[[2.0, 0.0, -2.0, 0.0]], references=[[1.0, 1.0, -1.0, -1.0]])
    {'si_sdr': 0.0}
"""


def scale_invariant_sdr(estimate: np.ndarray, target: np.ndarray) -> float:
    """SI-SDR of one estimate in dB, in float64 and after removing both means.

    Args:
        estimate (`np.ndarray` of shape `(num_samples,)`): estimated waveform.
        target (`np.ndarray` of shape `(num_samples,)`): target waveform.

    Returns:
        SI-SDR in dB, always finite: see the limits in the README for silence and exact copies.

    Raises:
        ValueError: waveforms that are not 1-D, are empty, differ in length or hold NaN or infinity.

    Source:
        Le Roux et al. 2019, eq. (4), with float64's machine epsilon (2.2e-16) in each energy.
    """
    estimate, target = (
        _checked_waveform(estimate, "prediction"),
        _checked_waveform(target, "target"),
    )
    if estimate.shape != target.shape:
        raise ValueError(
            f"A prediction has {estimate.size} samples and its target {target.size}: "
            "cut or pad both to the same length."
        )
    estimate, target = estimate - estimate.mean(), target - target.mean()
    # An energy of speech is above 1e-6, so this keeps degenerate ratios finite and moves no other.
    epsilon = np.finfo(np.float64).eps
    scale = (estimate @ target + epsilon) / (target @ target + epsilon)
    scaled_target = scale * target
    distortion = scaled_target - estimate
    ratio = (scaled_target @ scaled_target + epsilon) / (distortion @ distortion + epsilon)
    return float(10.0 * np.log10(ratio))


def _checked_waveform(waveform: np.ndarray, name: str) -> np.ndarray:
    waveform = np.asarray(waveform, dtype=np.float64)
    if waveform.ndim != 1 or waveform.size == 0:
        raise ValueError(f"Expected a {name} of shape (num_samples,), got {waveform.shape}.")
    if not np.isfinite(waveform).all():
        raise ValueError(f"A {name} holds NaN or infinite samples.")
    return waveform


class SiSdr(evaluate.Metric):
    """Mean SI-SDR and SI-SDR improvement of extracted speech, in dB."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features(
                {
                    "predictions": datasets.Sequence(datasets.Value("float64")),
                    "references": datasets.Sequence(datasets.Value("float64")),
                }
            ),
            reference_urls=["https://arxiv.org/abs/1811.02508"],
        )

    def compute(
        self,
        *,
        predictions: Sequence[np.ndarray] | None = None,
        references: Sequence[np.ndarray] | None = None,
        **kwargs: Any,
    ) -> dict[str, float] | None:
        """Scores waveforms as they are given, row by row.

        Those that were added before (`add`, `add_batch`) come back from Arrow as lists of Python
        floats, which take some fourteen times the memory of float32 waveforms: give all at once.

        Args:
            predictions (sequence of arrays of shape `(num_samples,)`): see the description.
            references (sequence of arrays of shape `(num_samples,)`): likewise.
            **kwargs: `mixtures`.

        Returns:
            The scores; None in all but the first of several processes.
        """
        added = self.writer is not None or self.num_process > 1
        if added or predictions is None or references is None:
            return super().compute(predictions=predictions, references=references, **kwargs)
        return self._compute(predictions, references, **kwargs)

    def _compute(
        self,
        predictions: Sequence[np.ndarray],
        references: Sequence[np.ndarray],
        mixtures: Sequence[np.ndarray] | None = None,
    ) -> dict[str, float]:
        if len(predictions) != len(references):
            raise ValueError(
                f"Got {len(predictions)} predictions for {len(references)} references: pass one "
                "reference a prediction."
            )
        pairs = zip(predictions, references, strict=True)
        estimate_db = [scale_invariant_sdr(estimate, target) for estimate, target in pairs]
        scores = {"si_sdr": float(np.mean(estimate_db))}
        if mixtures is not None:
            if len(mixtures) != len(references):
                raise ValueError(
                    f"Got {len(mixtures)} mixtures for {len(references)} references: "
                    "pass one mixture an example."
                )
            pairs = zip(mixtures, references, strict=True)
            mixture_db = [scale_invariant_sdr(mixture, target) for mixture, target in pairs]
            scores["si_sdri"] = scores["si_sdr"] - float(np.mean(mixture_db))
        return scores
