"""The card of a converted checkpoint: its source, its licence, its use."""

import json
from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData
from transformers import PreTrainedConfig, PreTrainedModel

from tse_ser import resources
from tse_ser.saving import CONVERSION_FACTS_NAME

UNKNOWN_LICENSE = "unknown"
USAGE = {
    "td_speakerbeam": """\
from transformers import AutoModel

extractor = AutoModel.from_pretrained("{name}", trust_remote_code=True)
speech = extractor(mixture, {enrollment}).extracted_values  # (batch, samples)
""",
    "shift_cnn": """\
from transformers import AutoModelForAudioClassification

classifier = AutoModelForAudioClassification.from_pretrained("{name}", trust_remote_code=True)
logits = classifier(waveform).logits  # waveform: (batch, samples)
""",
    "tse_ser": """\
from transformers import pipeline

recognize = pipeline(model="{name}", trust_remote_code=True)
recognize({{"mixture": "meeting.wav", "enrollment": "alice.wav"}})
""",
}
TITLES = {"td_speakerbeam": "TD-SpeakerBeam", "shift_cnn": "ShiftCNN", "tse_ser": "TSE-SER"}
PIPELINE_TAGS = {
    "td_speakerbeam": "audio-to-audio",
    "shift_cnn": "audio-classification",
    "tse_ser": "audio-classification",
}


def usage(config: PreTrainedConfig, name: str) -> str:
    """The lines of Python that use a model, by its config and its hub id or folder."""
    # A projection without an encoder of its own takes what an outside speaker encoder heard.
    from_outside = (
        getattr(config, "auxiliary_type", None) == "projection"
        and getattr(config, "speaker_encoder", None) is None
    )
    argument = "speaker_embeddings" if from_outside else "enrollment_values"
    return USAGE[config.model_type].format(name=name, enrollment=f"{argument}=enrollment")


def write_card(
    model: PreTrainedModel,
    output_dir: Path,
    form: str,
    checkpoint_name: str,
    license_id: str,
    source_model: str | None,
) -> None:
    """Writes `README.md` and the facts of the conversion beside a converted model. `form` is
    whose form the checkpoint had, as "ESPnet"; `license_id` the source's licence as the Hub
    writes it; `source_model` the Hub id of the source, where it has one."""
    metadata = ModelCardData(
        license=license_id,
        library_name="transformers",
        pipeline_tag=PIPELINE_TAGS[model.config.model_type],
        base_model=source_model,
    )
    template = resources.folder("model_cards") / "converted.md.jinja"
    card = ModelCard.from_template(
        metadata,
        template_path=str(template),
        title=TITLES[model.config.model_type],
        form=form,
        checkpoint=checkpoint_name,
        source_model=source_model,
        num_parameters=sum(parameter.numel() for parameter in model.parameters()),
        sampling_rate=model.config.sampling_rate,
        usage=usage(model.config, output_dir.name),
        license=None if license_id == UNKNOWN_LICENSE else license_id,
    )
    (output_dir / "README.md").write_text(f"{card}".rstrip() + "\n", encoding="utf-8")
    facts = {
        "form": form,
        "checkpoint": checkpoint_name,
        "license": license_id,
        "source_model": source_model,
    }
    (output_dir / CONVERSION_FACTS_NAME).write_text(
        json.dumps(facts, indent=2) + "\n", encoding="utf-8"
    )
