"""Every form of the extractor equals one put together from asteroid's own blocks (PyPI, MIT)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_models import relative_error, scatter_parameters
from torch import Tensor, nn
from torch.nn import functional as F

from tse_ser.conversion.checkpoint_conversion import convert_asteroid_state_dict, from_asteroid

pytestmark = pytest.mark.slow

MODEL_ARGS: dict[str, Any] = {
    "n_filters": 12,
    "kernel_size": 16,
    "stride": 8,
    "sample_rate": 8000,
    "n_blocks": 3,
    "n_repeats": 2,
    "bn_chan": 8,
    "hid_chan": 10,
    "skip_chan": 8,
    "conv_kernel_size": 3,
    "norm_type": "gLN",
    "mask_act": "relu",
    "causal": False,
    "encoder_activation": None,
    "i_adapt_layer": 2,
    "adapt_layer_type": "mul",
    "adapt_enroll_dim": 8,
}
EMBEDDING_SIZES = {"mul": 8, "muladd": 16, "concat": 8}
ACTIVATIONS = ("prelu", "leaky_relu", "sigmoid", "tanh", "gelu", "swish", "linear", "relu")
FORMS: list[dict[str, Any]] = [
    {
        "norm_type": norm_type,
        "causal": causal,
        "skip_chan": skip_chan,
        "adapt_layer_type": adapt,
        "adapt_enroll_dim": EMBEDDING_SIZES[adapt],
    }
    for norm_type in ("gLN", "cLN", "cgLN", "bN")
    for causal in (False, True)
    for skip_chan in (8, 0)
    for adapt in EMBEDDING_SIZES
]
FORMS += [
    {"mask_act": mask, "encoder_activation": encoder}
    for mask, encoder in zip(ACTIVATIONS, ACTIVATIONS[::-1], strict=True)
]
FORMS += [
    {"kernel_size": kernel_size, "stride": stride, "conv_kernel_size": width, "causal": causal}
    for kernel_size, stride in ((20, 10), (21, 5), (10, 10), (16, 3))
    for width in (5, 7)
    for causal in (False, True)
]
FORMS += [{"i_adapt_layer": 0}, {"i_adapt_layer": 5}, {"conv_kernel_size": 1}]


class AsteroidSpeakerBeam(nn.Module):
    """asteroid's filter banks and separators, adapted as the paper says."""

    def __init__(self, options: dict[str, Any]):
        super().__init__()
        asteroid = pytest.importorskip("asteroid.masknn", reason="asteroid is not installed")
        filterbanks = pytest.importorskip("asteroid_filterbanks")
        self.options = options
        sizes = {name: options[name] for name in ("n_filters", "kernel_size", "stride")}
        self.encoder, self.decoder = filterbanks.make_enc_dec("free", **sizes)
        shared = ("n_blocks", "bn_chan", "hid_chan", "skip_chan", "conv_kernel_size", "norm_type")
        network = {name: options[name] for name in shared}
        self.masker = asteroid.TDConvNet(
            options["n_filters"],
            1,
            n_repeats=options["n_repeats"],
            mask_act=options["mask_act"],
            causal=options["causal"],
            **network,
        )
        num_branches = 2 if options["skip_chan"] else 1
        embedding_size = num_branches * options["adapt_enroll_dim"]
        auxiliary = asteroid.TDConvNet(
            options["n_filters"],
            1,
            out_chan=embedding_size,
            n_repeats=1,
            mask_act="linear",
            **network,
        )
        own_encoder, _ = filterbanks.make_enc_dec("free", **sizes)
        self.auxiliary = nn.ModuleList([nn.Identity(), own_encoder, auxiliary])
        activation = asteroid.activations.get(options["encoder_activation"] or "linear")
        self.enc_activation = activation()
        if options["adapt_layer_type"] == "concat":
            channels = options["bn_chan"]
            self.masker.adapt_layer = nn.Module()
            self.masker.adapt_layer.transform = nn.ModuleList(
                nn.Linear(channels + options["adapt_enroll_dim"], channels)
                for _ in range(num_branches)
            )

    def forward(self, mixture: Tensor, enrollment: Tensor) -> tuple[Tensor, Tensor]:
        _, own_encoder, auxiliary = self.auxiliary
        embedding = auxiliary(own_encoder(enrollment[:, None]))[:, 0].mean(dim=-1)
        frames = self.enc_activation(self.encoder(mixture[:, None]))
        hidden, skips = self.masker.bottleneck(frames), []
        for index, block in enumerate(self.masker.TCN):
            output = block(hidden)
            branches = list(output) if self.options["skip_chan"] else [output]
            if index == self.options["i_adapt_layer"]:
                branches = self.adapt(branches, embedding)
            hidden = hidden + branches[0]
            skips += branches[1:]
        score = self.masker.mask_net(sum(skips) if skips else hidden)
        mask = self.masker.output_act(score[:, None])[:, 0]
        decoded = self.decoder(frames * mask).flatten(1)
        return F.pad(decoded, (0, mixture.shape[-1] - decoded.shape[-1])), embedding

    def adapt(self, branches: list[Tensor], embedding: Tensor) -> list[Tensor]:
        adapted = []
        for index, (branch, part) in enumerate(
            zip(branches, embedding[..., None].chunk(len(branches), dim=1), strict=True)
        ):
            if self.options["adapt_layer_type"] == "concat":
                layer: Any = self.masker.adapt_layer.transform[index]
                frames = torch.cat([branch, part.repeat(1, 1, branch.shape[-1])], dim=1)
                adapted.append(layer(frames.transpose(1, 2)).transpose(1, 2))
            elif self.options["adapt_layer_type"] == "muladd":
                size = part.shape[1] // 2
                adapted.append(branch * part[:, :size] + part[:, size:])
            else:
                adapted.append(branch * part)
        return adapted


@pytest.mark.parametrize("options", FORMS, ids=lambda form: "-".join(map(str, form.values())))
def test_outputs_and_gradients_equal_asteroids_blocks(options: dict[str, Any]) -> None:
    options = MODEL_ARGS | options
    torch.manual_seed(0)
    reference: Any = AsteroidSpeakerBeam(options)
    scatter_parameters(reference)
    model: Any = from_asteroid(options, reference.state_dict()).double()
    # Batch norm in training too: its statistics are part of the comparison.
    reference.double().train(options["norm_type"] == "bN")
    model.train(options["norm_type"] == "bN")
    arguments = [torch.randn(2, length, dtype=torch.float64) for length in (803, 611)]
    weights = torch.randn(2, 803, dtype=torch.float64)
    theirs, ours = ([value.clone().requires_grad_() for value in arguments] for _ in range(2))

    expected, expected_embedding = reference(*theirs)
    output = model(ours[0], enrollment_values=ours[1])
    (expected * weights).sum().backward()
    (output.extracted_values * weights).sum().backward()

    assert relative_error(output.extracted_values, expected) < 1e-10
    assert relative_error(output.speaker_embeddings, expected_embedding) < 1e-10
    for own, other in zip(ours, theirs, strict=True):
        assert own.grad is not None and other.grad is not None
        assert relative_error(own.grad, other.grad) < 1e-8
    gradients = convert_asteroid_state_dict(
        {name: p.grad for name, p in reference.named_parameters() if p.grad is not None},
        model.config,
    )
    parameters = dict(model.named_parameters())
    assert gradients.keys() == parameters.keys()
    floor = 1e-6 * max(gradient.abs().max().item() for gradient in gradients.values())
    for name, gradient in gradients.items():
        assert relative_error(parameters[name].grad, gradient, floor) < 1e-8, name
    state = model.state_dict()
    for name, value in convert_asteroid_state_dict(reference.state_dict(), model.config).items():
        assert relative_error(state[name].double(), value.double()) < 1e-10, name
