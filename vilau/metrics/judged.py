"""Answers read by a judge model: MM-Vet, and video question answering as Video-ChatGPT judges it.

The judge is whatever callable the user gives, usually a client of a language model with the
benchmark's published prompt. Papers differ in the judge, so its name stands in the passport.
"""

import ast
import re
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

from vilau.errors import ConfigError
from vilau.metrics.open_ended import MM_VET_CAPABILITIES, GradedAnswers
from vilau.metrics.parsers import AnswerStyle
from vilau.metrics.video_qa import Verdict, VideoVerdicts

Judge = Callable[[str, str, str], str]
"""Takes question, truth and answer; returns the judge model's reply as it came, ``""`` if it failed."""

IN_BRACES = re.compile(r"\{([^{}]*)")


def read_grade(reply: str) -> float | None:
    """Return the grade in 0..1 that a reply of MM-Vet's judge begins with; None if it does not."""
    try:
        grade = float(reply.strip().split(" ")[0])
    except ValueError:
        return None
    return grade if 0.0 <= grade <= 1.0 else None


def read_verdict(reply: str, style: AnswerStyle) -> Verdict | None:
    """Return what a reply such as ``{'pred': 'yes', 'score': 4}`` says; None if it cannot be read.

    ``lmms`` reads what is in the first braces; ``llava`` (VILA's script) wants the reply to be
    nothing else. A score of 4.8 is 4.
    """
    text = reply.strip()
    if style == "lmms":
        braces = IN_BRACES.search(text)
        text = f"{{{braces.group(1)}}}" if braces else ""
    try:
        said = ast.literal_eval(text)  # literals only: nothing is run
        pred, score = said["pred"].lower(), int(said["score"])
    except (SyntaxError, LookupError, TypeError, ValueError, AttributeError, OverflowError):
        return None
    return Verdict(True if "yes" in pred else False if "no" in pred else None, score)


def _check_name(judge_name: str, title: str) -> str:
    if not judge_name.strip():
        raise ConfigError(
            f"judge_name is empty, but {title} depends on its judge; name its model and version."
        )
    return judge_name


class MMVet(GradedAnswers):
    """MM-Vet (Yu et al. 2023). The published number is ``score`` times 100.

    Scripts ask a judge again that gives no grade; here that is the judge's own affair, and a reply
    without a grade counts as 0. lmms-eval puts a demand to think step by step before the question;
    LLaVA does not.

    Args:
        judge: its reply must begin with a grade in 0..1.
        judge_name: model and version.
        style: whose prompt the model answered; replies are read alike.
        capabilities: the capabilities that questions may be tagged with.

    Raises:
        ConfigError: the judge has no name, or the style is unknown.
    """

    title: ClassVar[str] = "MM-Vet"

    def __init__(
        self,
        judge: Judge,
        judge_name: str,
        style: AnswerStyle = "lmms",
        capabilities: Sequence[str] = MM_VET_CAPABILITIES,
    ) -> None:
        super().__init__(style, capabilities)
        self.judge, self.judge_name = judge, _check_name(judge_name, self.title)

    def grade(self, question: str, truth: str, answer: str) -> float | None:
        """Return the judge's grade."""
        return read_grade(self.judge(question, truth, answer))

    def reader(self) -> str:
        """Return what reads the answers."""
        return f"judge {self.judge_name}, prompt {self.style}"


class JudgedVideoQA(VideoVerdicts):
    """Video question answering as the papers score it: a judge says yes or no and a score in 0..5.

    A reply that cannot be read counts as no with score 0, as in lmms-eval; VILA's script asks until
    it can.

    Args:
        judge: its reply must hold a dictionary, see `read_verdict`.
        judge_name: model and version.
        style: how replies are read.

    Raises:
        ConfigError: the judge has no name, or the style is unknown.
    """

    title: ClassVar[str] = "video question answering, judged"
    columns: ClassVar[Mapping[str, str]] = {"questions": "question", "truths": "answer"}

    def __init__(self, judge: Judge, judge_name: str, style: AnswerStyle = "lmms") -> None:
        super().__init__(style)
        self.judge, self.judge_name = judge, _check_name(judge_name, self.title)

    def update(
        self, answers: Sequence[str], questions: Sequence[str], truths: Sequence[str]
    ) -> None:
        """Add answers with their questions and truths.

        Raises:
            DataError: the numbers differ.
        """
        self.check_counts(answers, questions=questions, truths=truths)
        for answer, question, truth in zip(answers, questions, truths, strict=True):
            self.count(read_verdict(self.judge(question, truth, answer), self.style))

    def reader(self) -> str:
        """Return what reads the answers."""
        return f"judge {self.judge_name}, parser {self.style}"
