"""Writes one or several studies as a page of HTML that needs nothing else: tables, curves, sound.

    python -m tse_ser.evaluation.report --results results/demo --audio 3

Style and drawings are inside the file and nothing is fetched. Speech that was not generated is
embedded only where `--audio` asks for it: that of most corpora may not be passed on.
"""

from __future__ import annotations

import argparse
import base64
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import soundfile
from markupsafe import Markup
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from data_builders.schema import SAMPLING_RATE
from tse_ser.evaluation.bootstrap import Cells
from tse_ser.evaluation.cells import Folder, as_folders, joined, load_cells, names
from tse_ser.evaluation.extraction_example import (
    ExtractionExample,
    Places,
    extract_examples,
    joint_cell,
)
from tse_ser.evaluation.figures import (
    add_places,
    grouped_confusions,
    optimistic_mark,
    study_figures,
)
from tse_ser.evaluation.metrics.si_sdr.si_sdr import scale_invariant_sdr
from tse_ser.evaluation.plots import INK
from tse_ser.evaluation.study_tables import build_sections
from tse_ser.evaluation.tables import training_minutes

TEMPLATE = "report_template.html"
NUM_FREE_AUDIO = 3
PEAK = 0.9
# Where an SVG file gives or uses an id.
SVG_ID = re.compile(r'(\bid="|url\(#|href="#)')
# Corpora whose speech has conditions that this page has to repeat.
LICENCES = {
    "ravdess": "RAVDESS (Livingstone and Russo): CC BY-NC-SA 4.0, mixed and extracted here; this "
    "page may be shared under that licence only.",
    "emodb": "EMO-DB (Burkhardt et al.): CC0-1.0.",
    "asterisk": "Asterisk prompts: CC BY-SA 3.0 or CC BY 3.0, by voice.",
    "librispeech": "LibriSpeech (Panayotov et al.): CC BY 4.0.",
}
UNKNOWN_LICENCE = (
    "Speech of {}: under its makers' own terms; check them before you share this page."
)
# Speech that anybody may pass on, and how many mixtures of it a page has.
FREE = ("generated", "generated_pool")


def write_report(
    results_dirs: Folder | Sequence[Folder],
    output_file: Folder | None = None,
    *,
    num_audio: int | None = None,
    corpus_dir: str | None = None,
    corpus_dirs: list[str] | None = None,
    cache_dir: str | None = None,
) -> Path:
    """Writes the page.

    Args:
        results_dirs (path or sequence of paths): folders of studies.
        output_file (path, optional): HTML file; default: `report.html` in the first folder.
        num_audio (`int`, optional): so many test mixtures of each study are embedded, with what
            its joint model extracts, the target and the enrollment; by default three where the
            model is there and all speech was generated, else none.
        corpus_dir, corpus_dirs, cache_dir: where the corpora lie, see `Places`.

    Returns:
        `Path`: the file.

    Raises:
        ValueError: mixtures are asked for, and no joint model is there.
    """
    folders = as_folders(results_dirs)
    sections = build_sections(load_cells(folders), training_minutes(folders))
    places = Places(corpus_dir, corpus_dirs, cache_dir)
    studies = []
    for index, folder in enumerate(folders):
        cells = load_cells(folder)
        name = f": {folder.name}" if len(folders) > 1 else ""
        study = _study(cells, folder, f"study{index}", num_audio, places)
        studies.append({**study, "suffix": name + optimistic_mark(cells)})
    template = Path(__file__).with_name(TEMPLATE).read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    title = "Emotion of a target speaker under interfering speech"
    page = environment.from_string(template).render(title=title, sections=sections, studies=studies)
    path = Path(output_file) if output_file is not None else folders[0] / "report.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    return path


def svg_markup(figure: Figure, prefix: str) -> Markup:
    """A drawing as inline SVG whose ink follows the page's colour.

    Args:
        figure (`Figure`): what is drawn; it is closed.
        prefix (`str`): letters and digits that no other drawing of the page has, for its ids.

    Returns:
        `Markup`: an `<svg>` element.
    """
    buffer = io.StringIO()
    # Nothing about the time or the program, so that the same results give the same page.
    facts = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with plt.rc_context({"svg.hashsalt": prefix}):
        figure.savefig(buffer, format="svg", transparent=True, metadata=facts)
    plt.close(figure)
    text = buffer.getvalue()
    # Without the XML prolog, which does not belong inside a page.
    text = SVG_ID.sub(rf"\1{prefix}-", text[text.index("<svg") :])
    return Markup(text.replace(INK, "currentColor"))


def flac_source(waveform: np.ndarray) -> str:
    """A waveform as a data URI, 16-bit FLAC.

    Args:
        waveform (`np.ndarray` of shape `(num_samples,)`): at 16 kHz, between -1 and 1.

    Returns:
        `str`: the `src` of an audio element.
    """
    buffer = io.BytesIO()
    soundfile.write(buffer, waveform, SAMPLING_RATE, format="FLAC", subtype="PCM_16")
    return f"data:audio/flac;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def _study(
    cells: Cells, folder: Path, prefix: str, num_audio: int | None, places: Places
) -> dict[str, Any]:
    figures = study_figures(folder, cells, with_confusions=False)
    study: dict[str, Any] = {
        "confusions": [_confusion(**group) for group in grouped_confusions(cells).values()],
        "figures": [
            (name.replace("_", " "), svg_markup(figure, f"{prefix}figure{index}"))
            for index, (name, figure) in enumerate(figures.items())
        ],
        "examples": [],
        "licences": [],
    }
    joint = joint_cell(folder, cells)
    if num_audio is None:
        free = _corpora(cells) <= {*FREE} and joint is not None
        num_audio = NUM_FREE_AUDIO if free else 0
    if num_audio > 0:
        if joint is None:
            raise ValueError(
                f"{folder} has no joint model whose checkpoint is there: leave out --audio, or "
                "give the folder that the study ran in."
            )
        indices = _spread(num_audio, joint["num_examples"])
        examples = extract_examples(folder, joint, indices, places)
        study["examples"] = [_example(example) for example in examples]
        study["licences"] = _licences(cells)
    return study


def _confusion(confusion: np.ndarray, classes: Sequence[str], title: str) -> dict[str, Any]:
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    rows = [
        (name, list(zip(shares[index].tolist(), confusion[index].tolist(), strict=True)))
        for index, name in enumerate(classes)
    ]
    return {"title": title, "classes": classes, "rows": rows}


def _spread(count: int, num_examples: int) -> list[int]:
    """So many indices, evenly over the test set: its beginning is one speaker's."""
    count = min(count, num_examples)
    return [index * num_examples // count for index in range(count)]


def _example(example: ExtractionExample) -> dict[str, Any]:
    clips: dict[str, np.ndarray] = {
        "mixture": example.mixture,
        "extracted": example.extracted,
        "target": example.target,
    }
    # One gain for the three, so that they can be compared by ear.
    gain = PEAK / max(max(np.abs(clip).max() for clip in clips.values()), 1e-8)
    clips = {name: gain * clip for name, clip in clips.items()}
    clips["enrollment"] = example.enrollment * (PEAK / max(np.abs(example.enrollment).max(), 1e-8))
    sdr_db = {
        name: scale_invariant_sdr(waveform, example.target)
        for name, waveform in (("mixture", example.mixture), ("extracted", example.extracted))
    }
    captions = {
        "mixture": f"Mixture: SI-SDR {sdr_db['mixture']:.1f} dB, heard {example.mixture_emotion}",
        "extracted": f"Extracted: SI-SDR {sdr_db['extracted']:.1f} dB, "
        f"heard {example.extracted_emotion}",
        "target": f"Target: {example.true_emotion}",
        "enrollment": "Enrollment",
    }
    return {
        "title": f"{example.utterance_id} with {example.interferer_id}",
        "clips": [
            {"caption": captions[name], "source": flac_source(clip)} for name, clip in clips.items()
        ],
    }


def _corpora(cells: Cells) -> set[str]:
    return {
        str(name).partition(":")[0]
        for cell in cells
        for field in ("targets", "interferers")
        for name in names(cell[field])
    }


def _licences(cells: Cells) -> list[str]:
    corpora = _corpora(cells)
    known = [LICENCES[name] for name in sorted(corpora & LICENCES.keys())]
    others = corpora - LICENCES.keys() - {*FREE}
    return [*known, UNKNOWN_LICENCE.format(joined(others))] if others else known


def main(argv: Sequence[str] | None = None) -> None:
    """Writes the page that the command line asks for and prints its name."""
    parser = argparse.ArgumentParser(description="Write studies as one page of HTML.")
    parser.add_argument(
        "--results", required=True, action="append", help="folder of a study; may be given again"
    )
    parser.add_argument("--output", help="HTML file; default: report.html in the first folder")
    parser.add_argument(
        "--audio",
        type=int,
        help="embed so many mixtures of each study, and mind the licence of the corpus; default: "
        "3 of generated speech, none of any other",
    )
    add_places(parser)
    arguments = parser.parse_args(argv)
    path = write_report(
        arguments.results,
        arguments.output,
        num_audio=arguments.audio,
        corpus_dir=arguments.corpus_dir,
        corpus_dirs=arguments.corpus_dirs,
        cache_dir=arguments.cache_dir,
    )
    print(path)


if __name__ == "__main__":
    main()
