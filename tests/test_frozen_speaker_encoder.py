"""What holds for every speaker encoder whose published weights an extractor builds on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tiny_models import CAMPPLUS_FIELDS, PROJECTION_FIELDS, tiny_extractor

from modeling.modeling_td_speakerbeam import SPEAKER_ENCODERS

every_encoder = pytest.mark.parametrize(
    "fields", [PROJECTION_FIELDS, CAMPPLUS_FIELDS], ids=["ge2e", "campplus"]
)


@every_encoder
def test_it_stays_frozen_and_in_evaluation_mode(fields: dict[str, Any]) -> None:
    model = tiny_extractor(**fields).train()
    encoder = model.speaker_encoder
    assert not any(module.training for module in encoder.modules())
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)
    mixture, target = torch.randn(2, 1, 9000).unbind()
    model(mixture, enrollment_values=target, target_values=target).loss.backward()
    optimizer.step()
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())


@every_encoder
@pytest.mark.parametrize("content", ["nothing", "text", "another model"])
def test_weights_that_are_none_name_the_file(
    fields: dict[str, Any], content: str, tmp_path: Path
) -> None:
    path = tmp_path / "model.safetensors"
    if content == "text":
        path.write_text("no weights")
    elif content == "another model":
        save_file({"other.weight": torch.zeros(1)}, path)
    encoder: Any = SPEAKER_ENCODERS[fields["speaker_encoder"]]()
    with pytest.raises(ValueError, match=str(path)):
        encoder.load_pretrained(tmp_path)
