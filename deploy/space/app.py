"""
The Space: one voice is picked out of a recording, and its emotion recognised.

    python app.py --model lab/tse-ser-ft

A Space has the environment variable TSE_SER_MODEL in place of the argument.
"""

from __future__ import annotations

import argparse
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from pictures import spectrogram_figure
from recognizer import (
    CHANNELS,
    MAX_NAME_LENGTH,
    MAX_SECONDS,
    Recognizer,
    RecordingError,
    as_int16,
    checked_name,
    saved_voice,
    with_voice,
)
from torch import Tensor
from words import HEADER, WAITING, alert, limits, notice, verdict

NEW_SAMPLE = "A new sample"
# Together an hour: what a visitor uploads is looked for every ten minutes.
CLEANING_INTERVAL_SECONDS = 600
KEPT_SECONDS = 3000
MAX_WAITING = 32
MAX_SESSIONS = 1000

SHOW_RESULT = (
    "() => document.getElementById('result')?.scrollIntoView({behavior: 'smooth', block: 'start'})"
)
# Browsers call sound in a webm or mp4 file video, which Gradio's places for sound refuse.
SOUND_IN_VIDEO = """
<script>
const places = "#mixture input[type=file], #sample input[type=file]";
const place = event => event.target.matches?.(places);
document.addEventListener("click", event => {
  if (place(event)) event.target.accept = "audio/*,video/webm,video/mp4";
}, true);
document.addEventListener("change", event => {
  const file = place(event) && event.target.files[0];
  if (!file || !file.type.startsWith("video/")) return;
  const sound = new DataTransfer();
  sound.items.add(new File([file], file.name, {type: file.type.replace("video/", "audio/")}));
  event.target.files = sound.files;
}, true);
</script>
"""
THEME = gr.themes.Base(
    primary_hue=gr.themes.colors.teal,
    neutral_hue=gr.themes.colors.slate,
    radius_size=gr.themes.sizes.radius_lg,
    # What the visitor's own system reads best: no font is fetched.
    font=["system-ui", "-apple-system", "Segoe UI", "Roboto", "DejaVu Sans", "sans-serif"],
    font_mono=["ui-monospace", "Menlo", "DejaVu Sans Mono", "monospace"],
).set(
    button_primary_background_fill="*primary_700",
    button_primary_background_fill_hover="*primary_800",
    button_primary_background_fill_dark="*primary_700",
    button_primary_background_fill_hover_dark="*primary_800",
    button_primary_text_color="white",
    body_background_fill="*neutral_50",
    body_background_fill_dark="*neutral_950",
    body_text_color_subdued="*neutral_600",
    body_text_color_subdued_dark="*neutral_300",
)

WAVEFORM = gr.WaveformOptions(waveform_progress_color=gr.themes.colors.teal.c600)

Updates = dict[Any, Any]


@dataclass
class Page:
    """
    The parts of the page that change, and what happens when somebody presses a button.

    Args:
        recognizer: the model.
    """

    recognizer: Recognizer

    def build(self) -> gr.Blocks:
        """The page, ready to be launched."""
        cleaning = (CLEANING_INTERVAL_SECONDS, KEPT_SECONDS)
        title = "One voice among several"
        with gr.Blocks(title=title, analytics_enabled=False, delete_cache=cleaning) as blocks:
            self.voices = gr.State({}, time_to_live=KEPT_SECONDS)
            html(HEADER)
            with gr.Row(elem_classes="halves"):
                with gr.Column(scale=4, min_width=320):
                    self._build_questions()
                with gr.Column(scale=6, min_width=320, elem_id="result"):
                    self._build_answers()
            html(limits(self.recognizer.emotions))
            self._connect()
        return blocks

    def _build_questions(self) -> None:
        self.example = gr.Button(
            "No recording at hand? Fill in an example",
            visible=self.recognizer.example is not None,
            elem_id="example",
        )
        html(
            "<h2>1. The recording</h2><p>Several people speak at once; up to "
            f"{MAX_SECONDS / 60:.0f} minutes.</p>"
        )
        self.mixture = audio_input("The recording", "mixture")
        html("<h2>2. The person you mean</h2>")
        self.chosen = gr.Radio(
            [NEW_SAMPLE], value=NEW_SAMPLE, label="Whose voice?", visible=False, elem_id="chosen"
        )
        with gr.Column(elem_id="new-sample") as self.new_sample:
            html(
                "<p>This person alone, speaking calmly, in another recording. About five seconds "
                "do well.</p>"
            )
            self.sample = audio_input("A sample of the voice", "sample")
            with gr.Accordion("Save this voice for other recordings", open=False, elem_id="keep"):
                self.name = gr.Textbox(
                    label="Name of the person", max_length=MAX_NAME_LENGTH, elem_id="name"
                )
                self.save = gr.Button("Save the voice", size="md", elem_id="save")
        with gr.Accordion("Stereo recordings", open=False, elem_id="stereo"):
            self.channel = gr.Radio(
                list(CHANNELS),
                value=next(iter(CHANNELS)),
                label="Which channel?",
                elem_id="channel",
            )
        self.forget = gr.Button("Forget this voice", visible=False, size="md", elem_id="forget")
        self.run = gr.Button("Recognise the emotion", variant="primary", elem_id="run")
        self.message = html(elem_id="message")

    def _build_answers(self) -> None:
        self.waiting = html(WAITING)
        with gr.Column(visible=False, elem_id="answers") as self.answers:
            self.verdict = html(elem_id="verdict")
            with gr.Row():
                with gr.Column(min_width=290):
                    self.voice_player = audio_output("The separated voice", "voice-player")
                    self.voice_picture = html(elem_id="voice-picture")
                with gr.Column(min_width=290):
                    self.mixture_player = audio_output("The whole recording", "mixture-player")
                    self.mixture_picture = html(elem_id="mixture-picture")

    def _connect(self) -> None:
        voice_choice = [self.voices, self.chosen, self.message]
        self.run.click(
            self.recognize,
            [self.mixture, self.sample, self.chosen, self.voices, self.channel],
            [
                self.message,
                self.waiting,
                self.answers,
                self.verdict,
                self.voice_player,
                self.voice_picture,
                self.mixture_player,
                self.mixture_picture,
            ],
            show_progress_on=[self.message],
            api_visibility="private",
        ).then(None, js=SHOW_RESULT)
        gr.on(
            [self.save.click, self.name.submit],
            self.save_voice,
            [self.name, self.sample, self.voices, self.channel],
            [*voice_choice, self.name],
            api_visibility="private",
        )
        self.forget.click(
            self.forget_voice, [self.chosen, self.voices], voice_choice, api_visibility="private"
        )
        self.chosen.change(
            show_sample, [self.chosen], [self.new_sample, self.forget], api_visibility="private"
        )
        if self.recognizer.example is not None:
            self.example.click(
                self.fill_in_example,
                None,
                [self.mixture, self.sample, self.chosen, self.message],
                api_visibility="private",
            )

    def recognize(
        self,
        mixture: str | None,
        sample: str | None,
        chosen: str,
        voices: dict[str, Tensor],
        channel: str,
    ) -> Updates:
        """Everything that the page shows after a press of the button."""
        try:
            voice = sample if chosen == NEW_SAMPLE else saved_voice(voices, chosen)
            recognition = self.recognizer.recognize(mixture, voice, CHANNELS[channel])
        except RecordingError as error:
            return {
                self.message: alert(str(error)),
                self.waiting: gr.update(visible=True),
                self.answers: gr.update(visible=False),
            }
        separated, mixture_played = recognition.voice, recognition.mixture
        rate = recognition.sampling_rate
        return {
            self.message: "",
            self.waiting: gr.update(visible=False),
            self.answers: gr.update(visible=True),
            self.verdict: verdict(recognition),
            self.voice_player: (rate, as_int16(separated)),
            self.voice_picture: spectrogram_figure(separated, rate, "The separated voice"),
            self.mixture_player: (rate, as_int16(mixture_played)),
            self.mixture_picture: spectrogram_figure(mixture_played, rate, "The whole recording"),
        }

    def save_voice(
        self, name: str, sample: str | None, voices: dict[str, Tensor], channel: str
    ) -> Updates:
        """Keep the voice of the sample under a name, for this visit."""
        try:
            name = checked_name(name)
            if name == NEW_SAMPLE:
                raise RecordingError(f"“{NEW_SAMPLE}” cannot be a name. Type another one.")
            voice, warnings = self.recognizer.embed(sample, CHANNELS[channel])
            voices = with_voice(voices, name, voice)
        except RecordingError as error:
            return {self.message: alert(str(error))}
        return {
            self.voices: voices,
            self.chosen: voice_radio(voices, name),
            self.message: notice(
                " ".join([f"The voice of {name} is saved for this visit.", *warnings])
            ),
            self.name: "",
        }

    def forget_voice(self, chosen: str, voices: dict[str, Tensor]) -> Updates:
        """Drop the chosen voice."""
        left = {name: voice for name, voice in voices.items() if name != chosen}
        return {
            self.voices: left,
            self.chosen: voice_radio(left, NEW_SAMPLE),
            self.message: notice(f"The voice of {chosen} is forgotten."),
        }

    def fill_in_example(self) -> Updates:
        """The recording and the sample that came with the model."""
        mixture, sample = map(self.recognizer.read, self.recognizer.example or ())
        return {
            self.mixture: mixture,
            self.sample: sample,
            self.chosen: NEW_SAMPLE,
            self.message: notice("The example is filled in. Now recognise the emotion."),
        }


def html(content: str = "", elem_id: str | None = None) -> gr.HTML:
    """Text or a picture, in the page's own style."""
    return gr.HTML(content, elem_id=elem_id, apply_default_css=False)


def audio_input(label: str, elem_id: str) -> gr.Audio:
    """A place to record or upload to."""
    return gr.Audio(
        label=label,
        type="filepath",
        sources=["upload", "microphone"],
        elem_id=elem_id,
        buttons=[],
        waveform_options=WAVEFORM,
    )


def audio_output(label: str, elem_id: str) -> gr.Audio:
    """A player."""
    return gr.Audio(
        label=label,
        interactive=False,
        elem_id=elem_id,
        buttons=["download"],
        waveform_options=WAVEFORM,
    )


def voice_radio(voices: dict[str, Tensor], chosen: str) -> dict[str, Any]:
    """The choice between a new sample and the saved voices; hidden while there is no choice."""
    return gr.update(choices=[NEW_SAMPLE, *voices], value=chosen, visible=bool(voices))


def show_sample(chosen: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Ask for a sample only where no saved voice is chosen, which can be forgotten instead."""
    is_new = chosen == NEW_SAMPLE
    return gr.update(visible=is_new), gr.update(visible=not is_new)


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line; ends the program where there is no model to show."""
    parser = argparse.ArgumentParser(description="A web page for a published model.")
    parser.add_argument(
        "--model",
        default=os.environ.get("TSE_SER_MODEL"),
        help="folder or hub id of a model saved with its pipeline (default: TSE_SER_MODEL)",
    )
    parser.add_argument("--port", type=int, help="default: the first free one from 7860 on")
    parsed = parser.parse_args(arguments)
    if not parsed.model:
        parser.error("pass --model FOLDER_OR_ID, or set TSE_SER_MODEL in the Space's settings")
    return parsed


def main() -> None:
    """Load the model and serve the page."""
    arguments = parse_arguments()
    # Gradio deletes what it kept when it is interrupted, and not when it is terminated.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    page = Page(Recognizer(arguments.model)).build()
    page.queue(default_concurrency_limit=1, max_size=MAX_WAITING)
    page.launch(
        server_port=arguments.port,
        theme=THEME,
        css_paths=Path(__file__).parent / "style.css",
        head=SOUND_IN_VIDEO,
        max_file_size="20mb",
        state_session_capacity=MAX_SESSIONS,
        # The visitor's browser would keep every run, recordings included.
        run_history=False,
        footer_links=[],
        ssr_mode=False,
    )


if __name__ == "__main__":
    main()
