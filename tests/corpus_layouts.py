"""Tiny corpora in the layouts of RAVDESS, EMO-DB, CREMA-D, Asterisk, IEMOCAP, LibriSpeech and ESD.

They hold noise bursts, no speech; names, speakers, sessions, labels and texts are laid out as the
releases have them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import datasets
import numpy as np
import soundfile

from data_builders.corpora.asterisk import VOICES
from data_builders.schema import UTTERANCE_FEATURES

LEAD_SECONDS = 0.2
TRAIL_SECONDS = 0.3
RAVDESS_EMOTIONS = ("01", "03", "04", "05")
IEMOCAP_LABELS = ("neu", "hap", "exc", "sad", "ang", "fru", "xxx")
# Subset to its speakers and their genders.
LIBRISPEECH_SPEAKERS = {
    "train-clean-100": {"19": "F", "26": "M", "60": "M", "103": "F"},
    "train-clean-360": {"14": "F", "16": "F", "17": "M", "22": "F", "28": "F", "30": "M"},
    "dev-clean": {"84": "F", "174": "M"},
}
ESD_FOLDERS = ("Neutral", "Angry", "Happy", "Sad", "Surprise")
APOSTROPHE = "\N{RIGHT SINGLE QUOTATION MARK}"
ESD_ENCODINGS = ("utf-8", "utf-16", "cp1252", "utf-8-sig")


def burst(seed: int, rate: int = 16_000, active_seconds: float = 0.4) -> np.ndarray:
    """Noise with silence before and after it; its loudness and length depend on the seed."""
    rng = np.random.default_rng(seed)
    active = rng.standard_normal(round((active_seconds + 0.01 * (seed % 7)) * rate))
    active *= 10 ** rng.uniform(-2.5, -1.0) / np.abs(active).max()
    lead, trail = (np.zeros(round(seconds * rate)) for seconds in (LEAD_SECONDS, TRAIL_SECONDS))
    return np.concatenate([lead, active, trail]).astype(np.float32)


def write_speech(path: Path, seed: int, rate: int = 16_000, active_seconds: float = 0.4) -> None:
    """A burst as a recording; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, burst(seed, rate, active_seconds), rate)


def write_ravdess(
    root: Path,
    actors: Iterable[int] = range(1, 13),
    rate: int = 16_000,
    suffix: str = ".flac",
    emotions: Iterable[str] = RAVDESS_EMOTIONS,
) -> Path:
    """Two statements of each emotion by each actor, in Actor_01 and so on."""
    for actor in actors:
        for emotion in emotions:
            for statement in ("01", "02"):
                name = f"Actor_{actor:02d}/03-01-{emotion}-01-{statement}-01-{actor:02d}{suffix}"
                write_speech(root / name, actor * 1000 + int(emotion) * 10 + int(statement), rate)
    return root


def write_emodb(root: Path, suffix: str = ".wav") -> Path:
    """A neutral and an angry sentence by each of the ten speakers, in wav/."""
    for speaker in ("03", "08", "09", "10", "11", "12", "13", "14", "15", "16"):
        for emotion in "NW":
            path = root / "wav" / f"{speaker}a01{emotion}a{suffix}"
            write_speech(path, int(speaker) * 100 + ord(emotion))
    return root


def write_cremad(
    root: Path,
    actors: Iterable[int] = (1001, 1002, 1020, 1040, 1060, 1080),
    sentences: Iterable[str] = ("IEO", "ITH", "WSI"),
    suffix: str = ".wav",
) -> Path:
    """Six emotions of some sentences by some actors, in AudioWAV/, and the demographics."""
    lines = ["ActorID,Age,Sex,Race,Ethnicity"]
    for actor in actors:
        lines.append(f"{actor},30,{'Male' if actor % 4 else 'Female'},Unknown,Not Hispanic")
        for place, sentence in enumerate(sentences):
            for number, emotion in enumerate(("ANG", "DIS", "FEA", "HAP", "NEU", "SAD")):
                name = f"{actor}_{sentence}_{emotion}_XX{suffix}"
                write_speech(root / "AudioWAV" / name, actor * 100 + place * 10 + number)
    (root / "VideoDemographics.csv").write_text("\n".join(lines), encoding="utf-8")
    return root


def write_asterisk(root: Path) -> Path:
    """Two prompts by each of the five voices, one of them in a subfolder."""
    for number, voice in enumerate(VOICES):
        write_speech(root / voice / "conf-full.flac", number + 50)
        write_speech(root / voice / "dictate" / "play_help.flac", number + 60, active_seconds=2)
    return root


def write_iemocap(
    root: Path,
    sessions: Iterable[int] = range(1, 6),
    turns_per_label: int = 1,
    labels: Sequence[str] = IEMOCAP_LABELS,
) -> Path:
    """One improvised and one scripted dialogue a session; both actors say each label in each."""
    for session in sessions:
        for dialogue in (f"Ses0{session}F_impro01", f"Ses0{session}M_script01_1"):
            folder = root / f"Session{session}"
            evaluations = ["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n"]
            texts = []
            audio = folder / "sentences" / "wav" / dialogue
            for actor in "FM":
                for number in range(turns_per_label * len(labels)):
                    turn = f"{dialogue}_{actor}{number:03d}"
                    label = labels[number % len(labels)]
                    start, end = 10.0 * number, 10.0 * number + 0.9
                    evaluations.append(
                        f"[{start:.4f} - {end:.4f}]\t{turn}\t{label}\t[2.5000, 2.5000, 2.5000]\n"
                        f"C-E2:\tNeutral;\t()\nA-E3:\tval 3; act 2; dom  2;\t()\n"
                    )
                    texts.append(
                        f"{turn} [{start:08.4f}-{end:08.4f}]: Turn {number} of {dialogue}."
                    )
                    seed = session * 10_000 + number * 10 + "FM".index(actor) + len(dialogue)
                    write_speech(audio / f"{turn}.wav", seed)
            _write_text(
                folder / "dialog" / "EmoEvaluation" / f"{dialogue}.txt", "\n".join(evaluations)
            )
            # What one evaluator said, and what macOS leaves behind.
            _write_text(
                folder / "dialog" / "EmoEvaluation" / "Categorical" / f"{dialogue}_e1_cat.txt",
                f"{dialogue}_F000 :Anger; ()\n",
            )
            _write_text(folder / "dialog" / "EmoEvaluation" / f"._{dialogue}.txt", "Mac OS X")
            _write_text(
                folder / "dialog" / "transcriptions" / f"{dialogue}.txt",
                "\n".join([*texts, f"{dialogue}_FXX0 [099.0000-099.5000]: (LAUGHTER)"]) + "\n",
            )
    return root


def write_librispeech(
    root: Path,
    speakers: Mapping[str, Mapping[str, str]] = LIBRISPEECH_SPEAKERS,
    utterances: int = 3,
    active_seconds: float = 0.4,
) -> Path:
    """Two chapters a speaker, with transcripts, and SPEAKERS.TXT of all speakers, below root."""
    lines = [
        ";",
        ";ID  |SEX| SUBSET           |MINUTES| NAME",
        # The one line of the true file that has a bar too many.
        "60   | M | train-clean-100  | 20.18 | |CBW|Simon",
    ]
    for subset, genders in speakers.items():
        for speaker, gender in genders.items():
            if speaker != "60":
                lines.append(f"{speaker:<4} | {gender} | {subset:<16} | 25.03 | A Reader")
            for chapter in (int(speaker) * 10 + 1, int(speaker) * 10 + 2):
                folder = root / subset / speaker / str(chapter)
                texts = []
                for number in range(utterances):
                    name = f"{speaker}-{chapter}-{number:04d}"
                    seed = chapter * 100 + number
                    write_speech(folder / f"{name}.flac", seed, active_seconds=active_seconds)
                    texts.append(f"{name} UTTERANCE {number} OF CHAPTER {chapter}\n")
                _write_text(folder / f"{speaker}-{chapter}.trans.txt", "".join(texts))
    _write_text(root / "SPEAKERS.TXT", "\n".join(lines) + "\n")
    return root


def write_librispeech_parquet(root: Path, librispeech: Path) -> Path:
    """An extracted LibriSpeech as the Hub has it: all/train.clean.100/0000.parquet and so on."""
    for subset in sorted(path.name for path in librispeech.iterdir() if path.is_dir()):
        rows = []
        for transcripts in sorted((librispeech / subset).rglob("*.trans.txt")):
            for line in transcripts.read_text(encoding="utf-8").splitlines():
                name, _, text = line.partition(" ")
                path = transcripts.parent / f"{name}.flac"
                speaker, chapter, _ = name.split("-")
                rows.append(
                    {
                        "file": path.name,
                        "audio": {"bytes": path.read_bytes(), "path": path.name},
                        "text": text,
                        "speaker_id": int(speaker),
                        "chapter_id": int(chapter),
                        "id": name,
                    }
                )
        table = datasets.Dataset.from_list(rows)
        split = subset.replace("dev", "validation").replace("-", ".")
        (root / "all" / split).mkdir(parents=True)
        table.cast_column("audio", datasets.Audio(decode=False)).to_parquet(
            str(root / "all" / split / "0000.parquet")
        )
    return root


def write_esd(
    root: Path,
    speakers: Iterable[int] = range(11, 21),
    sentences: Iterable[int] = (1, 21, 51),
    parts: bool = False,
    case: Callable[[str], str] = str,
) -> Path:
    """Sentences of evaluation, test and training in each emotion, in folders of parts or flat."""
    sentences = list(sentences)
    for speaker in speakers:
        lines = []
        for block, emotion in enumerate(ESD_FOLDERS):
            for sentence in sentences:
                part = "evaluation" if sentence <= 20 else "test" if sentence <= 50 else "train"
                name = f"{speaker:04d}_{block * 350 + sentence:06d}"
                folder = root / f"{speaker:04d}" / case(emotion) / (part if parts else "")
                write_speech(folder / f"{name}.wav", speaker * 2000 + block * 350 + sentence)
                lines.append(f"{name}\tIt{APOSTROPHE}s sentence {sentence}.\t{emotion}")
        encoding = ESD_ENCODINGS[speaker % len(ESD_ENCODINGS)]
        _write_text(
            root / f"{speaker:04d}" / f"{speaker:04d}.txt", "\r\n".join(lines), encoding=encoding
        )
    return root


def _write_text(path: Path, text: str, encoding: str = "utf-8") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))


def write_corpora(root: Path) -> Path:
    """The three corpora, each in the folder of its name, as `corpus_dir` wants them."""
    write_ravdess(root / "ravdess")
    write_emodb(root / "emodb")
    write_asterisk(root / "asterisk")
    return root


def utterances(rows: Iterable[dict[str, object]]) -> datasets.Dataset:
    """A corpus without audio: rows of `UTTERANCE_FEATURES`, what is left out gets a default."""
    filled = [
        {
            "path": f"{row['utterance_id']}.wav",
            "gender": "female",
            "emotion": "neutral",
            "session": "",
            "text": "",
            "language": "",
            "licence": "",
            "duration_seconds": 2.0,
            "speech_start_seconds": 0.5,
            "speech_end_seconds": 1.5,
            **row,
        }
        for row in rows
    ]
    return datasets.Dataset.from_list(filled, features=UTTERANCE_FEATURES)
