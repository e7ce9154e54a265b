"""Cards of models: rendered from facts by the templates of `model_cards/`, and checked."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jinja2
from huggingface_hub import ModelCard, ModelCardData
from huggingface_hub.repocard_data import eval_results_to_model_index

from tse_ser.publishing.errors import PublishingError
from tse_ser.publishing.facts import CardFacts
from tse_ser.publishing.results import eval_results
from tse_ser.publishing.stages import PROTOCOLS

TEMPLATES = Path(__file__).resolve().parents[2] / "model_cards"
CARD_NAME = "README.md"
TAGS = {
    "tse_ser": ("speech-emotion-recognition", "target-speaker-extraction", "speakerbeam"),
    "shift_cnn": ("speech-emotion-recognition",),
    "td_speakerbeam": ("target-speaker-extraction", "speech-separation", "speakerbeam"),
}
METRICS = {
    "tse_ser": ["recall", "accuracy", "si_sdr"],
    "shift_cnn": ["recall", "accuracy"],
    "td_speakerbeam": ["si_sdr"],
}
NEEDED = ("license", "library_name", "pipeline_tag", "tags")
# What a template leaves behind where a fact was missing, or somebody meant to write on.
UNFILLED = re.compile(
    r"\{\{|\}\}|\{%|%\}|\{#|More Information Needed|\bNone\b|\bnan\b|\bTODO\b|\[\]\("
)
EMPTY_SECTION = re.compile(r"^(#+ .*)\n+(?=#+ |\Z)", re.MULTILINE)
CODE_BLOCK = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def render_card(facts: CardFacts) -> str:
    """The card of a model.

    Args:
        facts (`CardFacts`): all that it says.

    Returns:
        `str`: the content of `README.md`, checked.

    Raises:
        PublishingError: something is left unfilled, or the metadata are none.
    """
    metadata = card_metadata(facts).to_yaml()
    protocols = {
        name: words
        for name, words in PROTOCOLS.items()
        if any(result.cell["protocol"] == name for result in facts.results)
    }
    text = render(f"{facts.model_type}.md.jinja", metadata, facts=facts, protocols=protocols)
    check_card(text)
    return text


def render(template: str, metadata: str, **context: Any) -> str:
    """Fills a template of `model_cards/`.

    Args:
        template (`str`): its file name.
        metadata (`str`): YAML of the card's head.
        context: what the template names.

    Returns:
        `str`: Markdown, with at most one empty line in a row.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.filters["figure"] = _figure
    text = environment.get_template(template).render(metadata=metadata, **context)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def card_metadata(facts: CardFacts) -> ModelCardData:
    """The head of a model's card.

    Args:
        facts (`CardFacts`): all that it says.

    Returns:
        `ModelCardData`: with the `model-index` of this model's own numbers.
    """
    widget = [
        {"example_title": "A mixture", "src": "sample/mixture.wav"},
        {"example_title": "The target speaker alone", "src": "sample/enrollment.wav"},
    ]
    return ModelCardData(
        license=facts.license.id,
        license_name=facts.license.name,
        license_link=facts.license.link,
        library_name="transformers",
        pipeline_tag=facts.pipeline_tag,
        language=list(facts.languages) or None,
        tags=[*TAGS[facts.model_type], "arxiv:2409.19585"],
        datasets=[corpus.hub_id or corpus.name for corpus in facts.corpora] or None,
        metrics=METRICS[facts.model_type],
        base_model=list(facts.base_models) or None,
        widget=widget if facts.samples else None,
        model_name=facts.repo_id.split("/")[-1] if facts.results else None,
        eval_results=eval_results(facts.results, facts.pipeline_tag) or None,
    )


def check_card(text: str, needed: Iterable[str] = NEEDED) -> None:
    """Refuses a card that is not complete.

    Args:
        text (`str`): the content of `README.md`.
        needed (`Iterable[str]`): what the head must hold.

    Raises:
        PublishingError: something is left unfilled, a section is empty, or the Hub's library cannot
            read the metadata.
    """
    _refuse(UNFILLED, text, "is left unfilled")
    # Comments of code look like headings.
    _refuse(EMPTY_SECTION, CODE_BLOCK.sub("(code)", text), "has no text")
    try:
        data: Any = ModelCard(text).data
    except Exception as error:  # of whatever YAML and the Hub's library raise
        raise PublishingError(f"{CARD_NAME}: the metadata cannot be read: {error}") from error
    missing = [name for name in needed if not data.get(name)]
    if missing:
        raise PublishingError(f"{CARD_NAME}: the metadata lack {', '.join(missing)}")
    if data.get("eval_results"):
        eval_results_to_model_index(data.model_name, data.eval_results)


def _refuse(pattern: re.Pattern[str], text: str, problem: str) -> None:
    found = pattern.search(text)
    if found:
        line = text[: found.start()].count("\n") + 1
        raise PublishingError(
            f"{CARD_NAME}, line {line}: {found.group().strip()!r} {problem}: complete the "
            "facts that it comes from"
        )


def _figure(value: Any) -> str:
    return "" if value is None or isinstance(value, jinja2.Undefined) else f"{value:.2f}"
