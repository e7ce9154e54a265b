"""The facts of one training, in the words of a card."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tse_ser.publishing.corpora import listed, titles
from tse_ser.publishing.errors import PublishingError
from tse_ser.publishing.lineage import FACTS_NAME

TITLES = {
    "extraction": "Extractor: target speaker extraction, SI-SNR loss",
    "classification": "Classifier: emotion, cross entropy",
    "joint": "Extractor and classifier together, SI-SNR loss and cross entropy",
}
CONDITIONS = {
    "clean": "as recorded",
    "noisy": "mixed with interferers",
    "denoised": "mixed with interferers and extracted again (the Denoised set)",
}
PROTOCOLS = {
    "validated": "trained on all sessions but two, selected on one, tested on the other",
    "paper": "trained on all sessions but the tested one, last epoch",
    "best_on_test": "trained on all sessions but the tested one; the best epoch on that session: "
    "optimistic",
}
BEST_ON_TEST = "best_on_test"
NOISE = "noise"


@dataclass(frozen=True)
class Stage:
    """One training, or the conversion of a checkpoint.

    Attributes:
        title (`str`): what was trained.
        rows (`tuple[tuple[str, str], ...]`): name and value of each fact.
    """

    title: str
    rows: tuple[tuple[str, str], ...]


def corpora_of(facts: Mapping[str, Any]) -> list[str]:
    """The corpora that a training heard.

    Args:
        facts (`Mapping[str, Any]`): what `training_facts.json` holds, or the facts of a conversion.

    Returns:
        `list[str]`: names as in the recipe, targets first; none of a conversion.
    """
    names = targets_of(facts)
    if is_conversion(facts):
        return names
    data = facts["data"]
    # Clean speech is heard alone, whatever the recipe names besides; LibriMix has its own others.
    if facts["training"]["condition"] != "clean" and not data.get("librimix_subset"):
        names += listed(data["interferers"])
    if data.get("noise_dir"):
        names.append(NOISE)
    return names


def targets_of(facts: Mapping[str, Any]) -> list[str]:
    """The corpora of a training's target speakers; none of a conversion."""
    if is_conversion(facts):
        return []
    data = facts["data"]
    return ["librispeech"] if data.get("librimix_subset") else listed(data["targets"])


def is_conversion(facts: Mapping[str, Any]) -> bool:
    """Whether facts are those of a converted checkpoint, which was trained elsewhere."""
    return "form" in facts


def describe_stage(facts: Mapping[str, Any]) -> Stage:
    """The facts of a training for readers.

    Args:
        facts (`Mapping[str, Any]`): what `training_facts.json` holds, or the facts of a conversion.

    Returns:
        `Stage`: title and rows.

    Raises:
        PublishingError: a fact is missing; the message names it.
    """
    if is_conversion(facts):
        source = facts["source_model"] or facts["checkpoint"]
        rows = (("Source", source), ("Form", facts["form"]), ("Licence", facts["license"]))
        return Stage("Converted from a public checkpoint, not trained here", rows)
    try:
        return _describe_training(facts)
    except KeyError as error:
        raise PublishingError(
            f"{FACTS_NAME} lacks {error}: train with the current train.py, or add the fact by hand"
        ) from error


def _describe_training(facts: Mapping[str, Any]) -> Stage:
    data, training = facts["data"], facts["training"]
    examples = facts["num_examples"]
    rows = [
        ("Speech", f"{_speech(data)}, {CONDITIONS[training['condition']]}"),
        *_choice_rows(facts),
        *_mixing_rows(data, training["condition"]),
        ("Protocol", f"{data['protocol']}, fold {data['fold']}: {PROTOCOLS[data['protocol']]}"),
        ("Utterances", _utterances(examples)),
        ("Parameters", _parameters(facts["num_parameters"])),
        ("Optimisation", _optimisation(facts)),
        *_selection_rows(facts),
        ("Time", _machine(facts)),
        ("Software", ", ".join(f"{name} {one}" for name, one in facts["versions"].items())),
    ]
    return Stage(TITLES[training["stage"]], tuple(rows))


def _speech(data: Mapping[str, Any]) -> str:
    subset = data.get("librimix_subset")
    return f"LibriMix {subset}, as published" if subset else titles(data["targets"])


def _mixing_rows(data: Mapping[str, Any], condition: str) -> list[tuple[str, str]]:
    if condition == "clean":
        return []
    interferers = f"{titles(data['interferers'])}, SNR {snr_words(data)}"
    if data.get("librimix_subset"):
        interferers = "those of LibriMix"
    if data.get("gender_state", "any") != "any":
        interferers += f", {data['gender_state']} gender as the target"
    emotion = data.get("enrollment_emotion") or "any"
    speech = "speech of any emotion" if emotion == "any" else f"{emotion} speech"
    seconds = data.get("enrollment_seconds")
    length = "whole utterances" if seconds is None else f"at most {number(seconds)} s"
    draws = {"speaker": ", every speaker drawn alike", "own_corpus": ", of the target's own corpus"}
    interferers += draws.get(data.get("interferer_draw", "corpus"), "")
    rows = [("Interferers", interferers), ("Enrollment", f"{speech}, {length}")]
    if data.get("noise_dir"):
        # LibriMix's metadata say how loud theirs is.
        level = f"SNR {_range(data['noise_snr_range_db'])}"
        level = "that of LibriMix" if data.get("librimix_subset") else level
        rows.append(("Noise", level + _of_examples(data.get("noise_share", 1))))
    if data.get("reverberation", "none") != "none":
        time = f"RT60 {_range(data['rt60_range_seconds'], 's')}"
        rows.append(("Rooms", time + _of_examples(data.get("reverberation_share", 1))))
    shares = {"nobody interferes": "clean_share", "the target is silent": "absent_share"}
    for words, key in shares.items():
        if data.get(key):
            rows.append(("Shares", f"{words}{_of_examples(data[key])}"))
    return rows


def _of_examples(share: float) -> str:
    return "" if share >= 1 else f", in {share:.0%} of the examples"


def _choice_rows(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What of the speech is heard, and how."""
    data = facts["data"]
    chosen = [f"`{name}`" for name in dict.fromkeys(corpora_of(facts)) if ":" in name]
    rows = [("Corpora as named in the recipe", ", ".join(chosen))] if chosen else []
    if data.get("equalizer_db"):
        words = f"each voice equalized by faders of {number(data['equalizer_db'])} dB"
        rows.append(("Channels", words))
    if data.get("lowpass_hz"):
        rows.append(("Low-pass", f"{number(data['lowpass_hz'])} Hz, on everything that is heard"))
    speeds = data.get("speed_factors") or [1.0]
    if list(speeds) != [1.0]:
        rows.append(("Speeds", ", ".join(map(number, speeds))))
    return rows


def snr_words(options: Mapping[str, Any]) -> str:
    """The law of the SNR between target and interferer, in a few words.

    Args:
        options (`Mapping[str, Any]`): `snr_distribution` and what goes with it.

    Returns:
        `str`: such as "0 dB" or "-5 to 5 dB".
    """
    law = options.get("snr_distribution", "uniform")
    if law == "loudness":
        return "by LibriMix's law of loudness"
    if law == "normal":
        mean, deviation = options["snr_mean_std_db"]
        return f"{number(mean)} ± {number(deviation)} dB"
    return _range(options["snr_range_db"])


def _range(bounds: Iterable[float], unit: str = "dB") -> str:
    low, high = bounds
    return f"{number(low)} {unit}" if low == high else f"{number(low)} to {number(high)} {unit}"


def number(value: float) -> str:
    """A number without a fraction that says nothing: 3.0 is 3, 0.0005 is 0.0005."""
    return f"{value:g}"


def _utterances(examples: Mapping[str, Any]) -> str:
    validation = examples.get("validation") or 0
    rest = f", {validation:,} for validation" if validation else ", none for validation"
    return f"{examples['train']:,} for training{rest}"


def _parameters(parameters: Mapping[str, Any]) -> str:
    return f"{parameters['all']:,}, of which {parameters['trained']:,} trained"


def _optimisation(facts: Mapping[str, Any]) -> str:
    training = facts["training"]
    batch = training["per_device_train_batch_size"] * training["gradient_accumulation_steps"]
    batch *= facts["num_processes"]
    rate = f"learning rate {number(training['learning_rate'])}"
    if training.get("extractor_learning_rate") is not None:
        rate += f" (extractor {number(training['extractor_learning_rate'])})"
    parts = [
        f"{number(round(facts['epochs'], 2))} epochs, {facts['steps']:,} steps of {batch}",
        f"{training['optim']}, {rate}, {training['lr_scheduler_type']} schedule",
        f"seed {training['seed']}",
    ]
    return "; ".join(parts)


def _selection_rows(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    training = facts["training"]
    if facts.get("best_metric") is None or not training["load_best_model_at_end"]:
        return [("Selection", "the last step")]
    metric = training["metric_for_best_model"].removeprefix("eval_")
    is_optimistic = facts["data"]["protocol"] == BEST_ON_TEST
    where = "on the test session: optimistic" if is_optimistic else "in validation"
    return [("Selection", f"step {facts['best_step']:,}, the best {metric} {where}")]


def _machine(facts: Mapping[str, Any]) -> str:
    machine = facts["machine"]
    device = machine["gpu"] or f"{machine['cpu']}, {machine['cores']} cores"
    minutes = max(round(facts["minutes"]), 1)
    processes = (
        "1 process" if facts["num_processes"] == 1 else f"{facts['num_processes']} processes"
    )
    return f"{minutes} minute{'s' * (minutes > 1)}, {processes}, {device}"
