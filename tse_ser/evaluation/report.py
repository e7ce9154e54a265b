"""Writes studies as one page of HTML that needs nothing else: tables, curves, sound.

    python -m tse_ser.evaluation.report results/demo/demo.parquet --output results/demo/report.html

Style and drawings are inside the file and nothing is fetched. Speech that was not generated is
embedded only where `--audio` asks for it: that of most corpora may not be passed on.
"""

from __future__ import annotations

import argparse
import base64
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import soundfile
from markupsafe import Markup
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from data_builders.schema import SAMPLING_RATE
from tse_ser.evaluation.examples import Example, add_places, extract_examples, places_of
from tse_ser.evaluation.figures import INK, study_figures
from tse_ser.evaluation.results import Results, read_results
from tse_ser.evaluation.tables import build_section
from tse_ser.publishing.corpora import find_corpora

TEMPLATE = "report_template.html"
PEAK = 0.9
# Where an SVG file gives or uses an id.
SVG_ID = re.compile(r'(\bid="|url\(#|href="#)')
# Speech that anybody may pass on, and how many mixtures of it a page has.
FREE = {"generated", "generated_pool"}
NUM_FREE_AUDIO = 3


def write_report(
    paths: Sequence[str | Path],
    output: str | Path,
    *,
    num_audio: int | None = None,
    places: Mapping[str, Any] | None = None,
) -> None:
    """Writes the page.

    Args:
        paths (sequence of paths): Parquet files of studies.
        output (path): HTML file.
        num_audio (`int`, optional): so many test mixtures of each study are embedded, with what
            its joint model extracts, the target and the enrollment; by default three where the
            model is there and all speech was generated, else none.
        places (mapping, optional): where the corpora of these mixtures lie.

    Raises:
        ValueError: mixtures are asked for, and no joint model is there.
    """
    every = [read_results(path) for path in paths]
    studies = [
        {
            "suffix": f": {results.facts['study']}" if len(every) > 1 else "",
            "figures": [
                (name.replace("_", " "), _svg_markup(figure, f"study{study}figure{index}"))
                for index, (name, figure) in enumerate(study_figures(results))
            ],
            **_heard(results, num_audio, places),
        }
        for study, results in enumerate(every)
    ]
    template = Path(__file__).with_name(TEMPLATE).read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.from_string(template).render(
        title="Emotion of a target speaker under interfering speech",
        sections=[build_section(results) for results in every],
        studies=studies,
    )
    output = Path(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(page, encoding="utf-8")


def _svg_markup(figure: Figure, prefix: str) -> Markup:
    """A drawing as inline SVG whose ink follows the page's colour, with ids of its own; it is
    closed."""
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


def _flac_source(waveform: np.ndarray) -> str:
    """A waveform of `(num_samples,)` at 16 kHz as a data URI of 16-bit FLAC."""
    buffer = io.BytesIO()
    soundfile.write(buffer, waveform, SAMPLING_RATE, format="FLAC", subtype="PCM_16")
    return f"data:audio/flac;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def _heard(
    results: Results, num_audio: int | None, places: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Test mixtures to listen to, and the licences of their speech."""
    corpora = {name for kind in ("targets", "interferers") for name in results.facts[kind]}
    wanted = num_audio
    if wanted is None:
        # By the corpora themselves: a folder of one's own may be called anything.
        is_free = {name.partition(":")[0] for name in corpora} <= FREE
        wanted = NUM_FREE_AUDIO if is_free else 0
    # Evenly over the test set: its beginning is one speaker's.
    num_examples = int(results.runs["num_examples"].min())
    indices = [index * num_examples // wanted for index in range(wanted)]
    examples = extract_examples(results, indices, places) if wanted else []
    if num_audio and not examples:
        raise ValueError(
            f"{results.path} has no joint model beside it: leave out --audio, or give the file in "
            "the folder that the study ran in."
        )
    licensed = find_corpora(sorted(corpora), None)
    return {
        "examples": [_example(example) for example in examples],
        "licences": [f"{corpus.title}: {corpus.license_words}" for corpus in licensed],
    }


def _example(example: Example) -> dict[str, Any]:
    # One gain for the three that lie over each other, so that they can be compared by ear.
    peak = max(
        np.abs(clip).max() for name, clip in example.waveforms.items() if name != "enrollment"
    )
    gains = dict.fromkeys(example.waveforms, PEAK / max(peak, 1e-8))
    gains["enrollment"] = PEAK / max(np.abs(example.waveforms["enrollment"]).max(), 1e-8)
    captions = {
        name: f"{name.title()}: SI-SDR {decibels:.1f} dB, heard {next(iter(example.heard[name]))}"
        for name, decibels in example.si_sdr_db.items()
    }
    captions |= {"target": f"Target: {example.true_emotion}", "enrollment": "Enrollment"}
    clips = [
        {"caption": caption, "source": _flac_source(gains[name] * example.waveforms[name])}
        for name, caption in captions.items()
    ]
    return {"title": example.title, "clips": clips}


def main(argv: Sequence[str] | None = None) -> None:
    """Writes the page that the command line asks for and prints its name."""
    parser = argparse.ArgumentParser(description="Write studies as one page of HTML.")
    parser.add_argument("results", nargs="+", help="Parquet files of studies")
    parser.add_argument("--output", required=True, help="HTML file to write")
    parser.add_argument(
        "--audio",
        type=int,
        help="embed so many mixtures of each study, and mind the licence of the corpus; default: "
        "3 of generated speech, none of any other",
    )
    add_places(parser)
    arguments = parser.parse_args(argv)
    places = places_of(arguments)
    write_report(arguments.results, arguments.output, num_audio=arguments.audio, places=places)
    print(arguments.output)


if __name__ == "__main__":
    main()
