"""What the published speaker encoders have in common: they are loaded, and never trained."""

from collections.abc import Callable
from pathlib import Path
from typing import Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn


class FrozenSpeakerEncoder(nn.Module):
    """
    A speaker encoder that stays frozen and in evaluation mode, over mel spectra at 16 kHz.

    A subclass computes `mel_filters` and `window` in `fill_buffers`, and embeds waveforms with
    `forward(waveform, lengths)`.
    """

    title: str
    embedding_dim: int
    mel_filters: Tensor
    window: Tensor

    def __init__(self, num_fft_bins: int, num_mel_bins: int, window_samples: int) -> None:
        super().__init__()
        # In single precision even where a model is loaded in half.
        filters = torch.empty(num_fft_bins, num_mel_bins, dtype=torch.float32)
        self.register_buffer("mel_filters", filters, persistent=False)
        window = torch.empty(window_samples, dtype=torch.float32)
        self.register_buffer("window", window, persistent=False)
        self.fill_buffers()

    def fill_buffers(self) -> None:
        """Compute the buffers, which `from_pretrained` leaves unset as they are not saved."""
        raise NotImplementedError

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        # `model.half()` would round the filters, and half precision has no Fourier transform.
        if self.window.dtype in (torch.float16, torch.bfloat16):
            self.mel_filters, self.window = self.mel_filters.float(), self.window.float()
            self.fill_buffers()
        return self

    def load_pretrained(self, weights_dir: str | Path) -> None:
        """
        Fill the encoder with published weights.

        Args:
            weights_dir: folder that holds `model.safetensors` under the public names.

        Raises:
            ValueError: there is no such file, or it holds another model.
        """
        path = Path(weights_dir) / "model.safetensors"
        if not path.is_file():
            raise ValueError(
                f"{path} does not exist: name the folder of the {self.title} encoder's weights."
            )
        try:
            self.load_state_dict(load_file(path))
        except (RuntimeError, SafetensorError) as error:
            raise ValueError(
                f"{path} does not hold a {self.title} speaker encoder: {error}"
            ) from error

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode, frozen."""
        # Again here, as `from_pretrained` makes all parameters trainable before it calls `eval`.
        self.requires_grad_(False)
        return super().train(False)
