"""Choose the meaning of the label 0 where it is left open, and find settings that the labels contradict."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from napari_unetvnet.data.meaning.reading import measured, read_evidence
from napari_unetvnet.errors import DataProblem

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from napari_unetvnet.data.meaning.evidence import Evidence
    from napari_unetvnet.data.meaning.reading import Reading
    from napari_unetvnet.images.pairs import Pair
    from napari_unetvnet.settings import TrainSettings

__all__ = ["Answer", "Contradiction", "Meaning", "Question", "UnclearLabels", "contradictions", "understand"]


@dataclass(frozen=True)
class Answer:
    """An answer to a question about labels.

    Parameters
    ----------
    text : str
        What it means, as the part of a sentence after "if".
    settings : dict of str to value
        The settings that say it.
    ready : bool
        Whether these settings suffice to train.
    """

    text: str
    settings: dict[str, Any]
    ready: bool = True

    @property
    def options(self) -> str:
        """The options of the command line that say it."""
        return " ".join(f"--{name.replace('_', '-')} {value}" for name, value in self.settings.items())


@dataclass(frozen=True)
class Question:
    """What labels leave open, in plain words, and the possible answers."""

    text: str
    answers: tuple[Answer, ...]

    @property
    def line(self) -> str:
        """The question for the command line."""
        return f"{self.text} {self.advice}"

    @property
    def advice(self) -> str:
        """The answers for the command line."""
        return f"Add {', or '.join(f'{answer.options} if {answer.text}' for answer in self.answers)}."


@dataclass(frozen=True)
class Contradiction:
    """Settings that do not fit the labels.

    Parameters
    ----------
    kind : str
        Identifier.
    senseless : bool
        Whether a training would learn nothing of use, so that it is refused; else it is only likely.
    about : str
        Name of labels that show it.
    question : Question
        What was set, what the labels look like, and how to set it right.
    """

    kind: str
    senseless: bool
    about: str
    question: Question


class UnclearLabels(DataProblem):
    """Labels whose meaning must be asked for.

    Parameters
    ----------
    *questions : Question
        At least one.
    """

    def __init__(self, *questions: Question) -> None:
        super().__init__(*(question.line for question in questions))
        self.questions = questions


@dataclass(frozen=True)
class Meaning:
    """What the label 0 means, which painted value is the background, and how each is known."""

    unlabelled: Literal["background", "ignore"]
    background: int | None
    why_unlabelled: str
    why_background: str = ""


def understand(pairs: Sequence[Pair], settings: TrainSettings) -> Meaning:
    """Choose the meaning of the label 0 and the background value where they are not set.

    Parameters
    ----------
    settings : TrainSettings
        ``unlabelled`` and ``background`` are kept where they are set.

    Returns
    -------
    Meaning

    Raises
    ------
    UnclearLabels
        If labels and images do not tell it.
    """
    chosen = settings.model_fields_set
    if "unlabelled" in chosen and ("background" in chosen or settings.unlabelled == "background"):
        return Meaning(settings.unlabelled, settings.background, "as set", "as set")
    if settings.multilabel or settings.label_values == "objects":
        unlabelled = settings.unlabelled if "unlabelled" in chosen else "background"
        return Meaning(unlabelled, settings.background, "what is in no mask, region or object is background")
    if background := settings.background or settings.named_background:
        return Meaning("ignore", background, "the background is painted", "as set")
    reading = read_evidence(measured(pairs, settings))
    if not reading.values:  # refused later, with a better reason
        return Meaning(settings.unlabelled, None, "nothing is painted")
    if "unlabelled" not in chosen and (why := _why_background(reading)):
        return Meaning("background", None, why)
    if "background" in chosen:
        return Meaning("ignore", None, _why_ignored(reading), "as set")
    return Meaning("ignore", *_choose_background(reading))


def _why_background(reading: Reading) -> str:
    """Say why the label 0 is background; empty if it is not, and a question if it cannot be told."""
    if reading.opinion == "finished":
        return "the painted areas end where the image changes"
    if reading.opinion == "unmeasured" and len(reading.values) == 1:
        return "only one value is painted, and too little of it to compare it with the image"
    if reading.opinion not in ("strokes", "full"):
        raise UnclearLabels(_what_is_unpainted(reading))
    return ""


_PAINT_BACKGROUND = Answer(
    "only examples are painted (paint background with another value first)", {"unlabelled": "ignore"}, ready=False
)


def _why_ignored(reading: Reading) -> str:
    if reading.opinion == "full":
        return "no voxel is 0"
    return f"unpainted voxels look like those painted with {reading.alike or reading.values[0]}"


def _choose_background(reading: Reading) -> tuple[int | None, str, str]:
    """Choose the background among the painted values; of fully painted labels only one that is clear."""
    why = _why_ignored(reading)
    if len(set(reading.backgrounds.values())) > 1:
        raise UnclearLabels(_which_background(reading))
    if reading.background is not None:
        return reading.background, why, "most of the image looks like it"
    if reading.opinion == "full":
        return 0, why, "no painted value looks more like background than the others"
    return min(reading.values), why, "the lowest painted value, as none looks more like background than the others"


def _what_is_unpainted(reading: Reading) -> Question:
    ignored = {"unlabelled": "ignore", "background": reading.background or min(reading.values, default=1)}
    strokes = Answer(f"only examples are painted, and label {ignored['background']} is painted on background", ignored)
    if len(reading.values) == 1:
        found = f"Only the value {reading.values[0]} is painted, and unpainted voxels look like it."
        strokes = _PAINT_BACKGROUND
    elif reading.opinion == "contradictory":
        found = f"Labels {reading.example} look finished, labels {reading.other} look like a few strokes."
    else:
        found = "The labels do not tell what their unpainted voxels are."
    background = Answer("all that is unpainted is background", {"unlabelled": "background"})
    return Question(f"{found} What does label 0 mean?", (background, strokes))


def _which_background(reading: Reading) -> Question:
    differing: dict[int, str] = {}
    for name, value in reading.backgrounds.items():
        differing.setdefault(value, name)
    looks = ", ".join(f"{value} in {name}" for value, name in differing.items())
    answers = tuple(
        Answer(f"{value} is background in all images", {"unlabelled": "ignore", "background": value})
        for value in sorted(differing)
    )
    return Question(f"Different values look like the background: {looks}. Which painted value is background?", answers)


def contradictions(found: Sequence[Evidence], settings: TrainSettings) -> list[Contradiction]:
    """Find settings that the labels contradict.

    Parameters
    ----------
    found : sequence of Evidence
        Of some images.
    settings : TrainSettings
        Complete: with the meaning that was set or chosen.

    Returns
    -------
    list of Contradiction
        The senseless ones first.
    """
    if settings.multilabel or settings.label_values == "objects":
        return []
    reading = read_evidence(found)
    if settings.unlabelled == "background":
        found_here = list(_of_background(reading, settings))
    else:
        found_here = list(_of_ignored(reading, settings))
        if settings.start_from is not None:  # strokes on what that model gets wrong show nothing typical
            found_here = [replace(each, senseless=False) for each in found_here]
    return sorted(found_here, key=lambda each: not each.senseless)


def _of_background(reading: Reading, settings: TrainSettings) -> Iterator[Contradiction]:
    """Find strokes whose surroundings would be learnt as background."""
    background = reading.background or min(reading.values, default=1)
    strokes = {"unlabelled": "ignore", "background": background}
    if reading.opinion in ("strokes", "contradictory"):
        found = (
            f"Only examples seem to be painted: unpainted voxels look like those painted with {reading.alike}. All of "
            "them would be learnt as background."
        )
        answer = Answer(f"label {background} is painted on background and the rest is not painted yet", strokes)
        about = reading.example if reading.opinion == "strokes" else reading.other
        yield Contradiction("strokes-as-background", reading.opinion == "strokes", about, Question(found, (answer,)))
    elif reading.opinion == "unclear":
        found = "Unpainted voxels look like painted ones, and all of them would be learnt as background."
        answer = Answer(f"they are not painted yet, and label {background} is painted on background", strokes)
        if len(reading.values) == 1:
            answer = _PAINT_BACKGROUND
        yield Contradiction("maybe-strokes", False, reading.example, Question(found, (answer,)))


def _of_ignored(reading: Reading, settings: TrainSettings) -> Iterator[Contradiction]:
    """Find finished labels without background, and other backgrounds than the one that is set."""
    if reading.opinion in ("finished", "contradictory"):
        found = (
            "The labels look finished: unpainted voxels look like none of the painted values. They would be ignored, "
            "and the model would find no background there."
        )
        answer = Answer("all that is unpainted is background", {"unlabelled": "background"})
        yield Contradiction(
            "finished-as-ignored", reading.opinion == "finished", reading.example, Question(found, (answer,))
        )
        return
    clear = set(reading.backgrounds.values())
    if len(clear) > 1:
        yield Contradiction("backgrounds-differ", True, "", _which_background(reading))
    elif settings.background in reading.values and clear and clear != {settings.background}:
        (other,) = clear
        found = (
            f"Label {settings.background} was named as the background, but most of the image looks like label {other}"
            + (f", which encloses label {settings.background}." if reading.enclosing else ".")
        )
        answer = Answer(f"label {other} is background", {"background": other})
        yield Contradiction(
            "other-background", reading.enclosing, next(iter(reading.backgrounds)), Question(found, (answer,))
        )
