"""What the page says."""

from __future__ import annotations

from html import escape

from pictures import probability_table
from recognizer import Recognition

# What the pipeline answers in place of an emotion: as the first sentence, and after it.
INSTEAD = {
    "not enough speech": "There is too little speech to tell.",
    "the speaker was not heard": "This person does not seem to be in the recording.",
}
ANSWERS = {
    "not enough speech": "What follows is a guess at best.",
    "the speaker was not heard": "What follows belongs to another voice.",
    "uncertain": "That is far from certain.",
}
HEADER = """
<header class="intro">
  <h1>One voice among several</h1>
  <p>Somebody speaks, and somebody else speaks at the same time. Give such a recording, and a few
  seconds of the person you mean: that voice is separated from the others first, and only then is
  its emotion recognised.</p>
</header>
"""
WAITING = """
<div class="waiting">
  <h2>The result will be here</h2>
  <p>You will hear the separated voice, see it beside the whole recording, and read what each of
  them sounds like.</p>
</div>
"""
# Shown below everything, as it concerns whatever the answer is.
LIMITS = """
<footer class="limits">
  <p><strong>A guess, not the truth.</strong> The answer is one of {emotions}: how a voice
  <em>sounds</em> to a program that has heard few people. It does not tell what somebody feels or
  means, and it is no lie detector. Do not judge people by it, and do not record anybody who has
  not agreed.</p>
  <p><strong>Your recordings stay yours.</strong> They and the saved voices serve this visit alone
  and are deleted within an hour. Nothing is used for training or given to others.</p>
</footer>
"""


def verdict(recognition: Recognition) -> str:
    """The answer in a sentence or two, what to know about it, and the table of probabilities."""
    separated = max(recognition.separated, key=recognition.separated.__getitem__)
    unseparated = max(recognition.unseparated, key=recognition.unseparated.__getitem__)
    answer = f"This voice sounds <strong>{escape(separated)}</strong>."
    more = ANSWERS.get(recognition.answer, "")
    if recognition.answer in INSTEAD:
        answer = INSTEAD[recognition.answer]
    same = "would be the same" if separated == unseparated else "would be"
    name = "" if separated == unseparated else f" <strong>{escape(unseparated)}</strong>"
    speaks = f"This person speaks for {recognition.speech_seconds:.1f} seconds, all of which count."
    lines = [
        f'<p class="answer">{answer}</p>',
        more and f"<p>{more}</p>",
        f"<p>Had nobody been separated, the answer {same}{name}.</p>",
        "" if recognition.answer in INSTEAD else f"<p>{speaks}</p>",
        *(f'<p class="warning">{escape(warning)}</p>' for warning in recognition.warnings),
    ]
    table = probability_table(recognition.separated, recognition.unseparated)
    return f'<section class="verdict">{"".join(lines)}{table}</section>'


def alert(text: str) -> str:
    """What went wrong; screen readers say it at once."""
    return f'<p class="message alert" role="alert">{escape(text)}</p>'


def notice(text: str) -> str:
    """What went well."""
    return f'<p class="message" role="status">{escape(text)}</p>'


def limits(emotions: list[str]) -> str:
    """What the answer is worth, and what becomes of the recordings."""
    *others, last = map(escape, emotions)
    return LIMITS.format(emotions=f"{', '.join(others)} or {last}")
