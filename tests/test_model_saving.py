"""Models saved and loaded: bit by bit, through the Auto classes, and with their code alone."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, cast

from safetensors.torch import load_file, save_file
from subprocesses import run_program
from tiny_models import (
    PROJECTION_FIELDS,
    joint_batch,
    relative_error,
    tiny_classifier,
    tiny_extractor,
)
from transformers import (
    Trainer,
    TrainingArguments,
)

from modeling import (
    TseSerFeatureExtractor,
    TseSerForEmotionClassification,
)


def test_a_trainer_of_its_own_keeps_scores_and_no_waveforms(tmp_path: Path) -> None:
    arguments = TrainingArguments(
        output_dir=str(tmp_path), per_device_eval_batch_size=2, report_to="none", use_cpu=True
    )
    batch = {name: values for name, values in joint_batch().items() if name != "target_values"}
    rows = [{name: values[index] for name, values in batch.items()} for index in range(2)]
    model = TseSerForEmotionClassification.from_sub_models_pretrained(
        tiny_extractor(), tiny_classifier(), presence_threshold=0.5
    )
    predicted: Any = Trainer(model=model, args=arguments).predict(cast(Any, rows))
    assert predicted.predictions.shape == (2, 4)
    assert predicted.label_ids.tolist() == batch["labels"].tolist()


REMOTE_PROGRAM = """
import sys
sys.modules["modeling"] = None  # an installed package must not be what answers
from safetensors.torch import load_file, save_file
from transformers import AutoFeatureExtractor, AutoModel, AutoModelForAudioClassification
folder = sys.argv[1]
batch = load_file("batch.safetensors")
model = AutoModelForAudioClassification.from_pretrained(folder + "/tse_ser", trust_remote_code=True)
assert type(model).__module__.startswith("transformers_modules."), type(model)
features = AutoFeatureExtractor.from_pretrained(folder + "/tse_ser", trust_remote_code=True)
assert type(features).__module__.startswith("transformers_modules."), type(features)
extractor = AutoModel.from_pretrained(folder + "/extractor", trust_remote_code=True)
features([batch["input_values"][0].numpy()])
extracted = extractor(**batch).extracted_values
save_file({"logits": model(**batch).logits, "extracted_values": extracted}, "answer.safetensors")
"""


def test_saved_code_loads_in_a_process_without_the_package(tmp_path: Path) -> None:
    model = TseSerForEmotionClassification.from_sub_models_pretrained(
        tiny_extractor(**PROJECTION_FIELDS), tiny_classifier("whisper")
    ).eval()
    model.save_pretrained(tmp_path / "models" / "tse_ser")
    model.extractor.save_pretrained(tmp_path / "models" / "extractor")
    TseSerFeatureExtractor().save_pretrained(tmp_path / "models" / "tse_ser")
    batch = {name: joint_batch()[name] for name in ("input_values", "enrollment_values")}
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    save_file(
        {name: value.contiguous() for name, value in batch.items()}, elsewhere / "batch.safetensors"
    )

    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["HF_MODULES_CACHE"] = str(tmp_path / "modules")
    program = [sys.executable, "-c", REMOTE_PROGRAM, str(tmp_path / "models")]
    run_program(program, elsewhere, environment)

    answer = load_file(elsewhere / "answer.safetensors")
    expected = model(**batch)
    assert relative_error(answer["logits"], expected.logits) < 1e-6
    assert relative_error(answer["extracted_values"], expected.extracted_values) < 1e-6
