"""
Time and memory of the extractor against Conv-TasNet of asteroid, built to the same function.

    python -m benchmarks.extractor                                   # float32, this machine's cores
    python -m benchmarks.extractor --precision bfloat16 --compile
    python -m benchmarks.extractor --device cuda --precision bfloat16 --compile

Needs asteroid (pip install 'tse-ser[benchmarks]'). Both are of the public recipe's size, start from
the same weights and are seen to give the same output first. The peer has what TD-SpeakerBeam needs
beside a Conv-TasNet: an auxiliary network of the same blocks and the multiplicative adaptation.
"""

import argparse
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.harness import Settings, parse, report, training_step
from modeling import TdSpeakerBeamConfig, TdSpeakerBeamForSpeechExtraction
from tse_ser.conversion.checkpoint_conversion import convert_asteroid_state_dict

TITLES = {
    "train": "train step, 2 x 3 s with an enrollment of 3 s",
    "extract": "extraction of 6 s with an enrollment of 3 s",
}
SECONDS = {"train": (2, 3, 3), "extract": (1, 6, 3)}  # batch size, mixture, enrollment


def waveforms(task: str, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """Mixture, enrollment and target, `(batch_size, num_samples)`."""
    batch_size, mixture_seconds, enrollment_seconds = SECONDS[task]
    generator = torch.Generator().manual_seed(0)

    def noise(seconds: int) -> Tensor:
        return torch.randn(batch_size, 16000 * seconds, generator=generator).to(device)

    return noise(mixture_seconds), noise(enrollment_seconds), noise(mixture_seconds)


def peer_model(config: TdSpeakerBeamConfig) -> nn.Module:
    """asteroid's Conv-TasNet with an auxiliary network, its parameters named as the public ones."""
    from asteroid.masknn.convolutional import TDConvNet
    from asteroid.models import ConvTasNet
    from asteroid_filterbanks import make_enc_dec

    filters = {
        "n_filters": config.num_filters,
        "kernel_size": config.kernel_size,
        "stride": config.stride,
    }
    sizes = {
        "n_blocks": config.num_blocks,
        "bn_chan": config.bottleneck_channels,
        "hid_chan": config.hidden_channels,
        "skip_chan": config.skip_channels,
    }

    class Peer(ConvTasNet):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(
                n_src=1, n_repeats=config.num_repeats, mask_act="relu", **filters, **sizes
            )
            encoder, _ = make_enc_dec("free", **filters)
            network = TDConvNet(
                config.num_filters,
                n_src=1,
                out_chan=config.embedding_size,
                n_repeats=1,
                mask_act="linear",
                **sizes,
            )
            self.auxiliary = nn.Sequential(nn.Identity(), encoder, network)

        def forward(self, mixture: Tensor, enrollment: Tensor) -> Tensor:
            embedding = self.auxiliary(enrollment[:, None])[:, 0].mean(dim=-1, keepdim=True)
            frames = self.encoder(mixture[:, None])
            masker, skip_sum = self.masker, 0
            hidden_states = masker.bottleneck(frames)
            for index, block in enumerate(masker.TCN):
                residual, skip = block(hidden_states)
                if index == config.adaptation_layer:
                    residual_factor, skip_factor = embedding.chunk(2, dim=1)
                    residual, skip = residual * residual_factor, skip * skip_factor
                hidden_states, skip_sum = hidden_states + residual, skip_sum + skip
            mask = masker.output_act(masker.mask_net(skip_sum))
            decoded = self.decoder(frames * mask)[:, 0]
            return F.pad(decoded, (0, mixture.shape[-1] - decoded.shape[-1]))

    torch.manual_seed(0)
    return Peer()


def our_model(config: TdSpeakerBeamConfig, state_dict: dict[str, Tensor]) -> nn.Module:
    """Ours with the peer's weights."""
    model = TdSpeakerBeamForSpeechExtraction(config)
    model.load_state_dict(convert_asteroid_state_dict(state_dict, config))
    return model


def build_peer(settings: Settings) -> Callable[[], object]:
    """What is timed of the peer."""
    from asteroid.losses import singlesrc_neg_sisdr

    model = peer_model(TdSpeakerBeamConfig()).to(settings.device)
    mixture, enrollment, target = waveforms(settings.task, settings.device)
    if settings.task == "train":
        return training_step(
            model, lambda: singlesrc_neg_sisdr(model(mixture, enrollment), target).mean(), settings
        )
    model.eval()
    return torch.no_grad()(lambda: model(mixture, enrollment))


def build_ours(settings: Settings) -> Callable[[], object]:
    """What is timed of ours."""
    model: nn.Module = TdSpeakerBeamForSpeechExtraction(TdSpeakerBeamConfig()).to(settings.device)
    if settings.compile:
        model = torch.compile(model, fullgraph=True)
    mixture, enrollment, target = waveforms(settings.task, settings.device)
    if settings.task == "train":
        return training_step(
            model,
            lambda: model(mixture, enrollment_values=enrollment, target_values=target).loss,
            settings,
        )
    model.eval()

    @torch.no_grad()
    def extract() -> object:
        with settings.autocast():
            return model(mixture, enrollment_values=enrollment)

    return extract


def check_same_function() -> None:
    """
    Refuse to compare two different functions.

    Raises:
        ValueError: with the same weights, the outputs differ.
    """
    config = TdSpeakerBeamConfig(num_repeats=1)
    peer = peer_model(config)
    ours = our_model(config, peer.state_dict())
    mixture, enrollment, _ = waveforms("extract", "cpu")
    with torch.no_grad():
        expected = peer(mixture[:, :16000], enrollment[:, :16000])
        output = ours(mixture[:, :16000], enrollment_values=enrollment[:, :16000])
    deviation = float((output.extracted_values - expected).norm() / expected.norm())
    print(f"relative deviation of the outputs at the same weights: {deviation:.1e}")
    if deviation > 1e-5:
        raise ValueError(f"The peer computes something else: outputs deviate by {deviation:.1e}.")


def main() -> None:
    """Run the command line."""
    options = parse(argparse.ArgumentParser(description=(__doc__ or "").split("\n")[1]), [*TITLES])
    check_same_function()
    report(options, build_ours, build_peer, "asteroid, float32", TITLES)


if __name__ == "__main__":
    main()
