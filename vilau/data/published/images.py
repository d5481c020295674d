"""Readers of the benchmarks about pictures that want words: VQAv2, OK-VQA, VizWiz, GQA, TextVQA, POPE, MME, MM-Vet."""

from __future__ import annotations

from pathlib import Path

from vilau.data.published.questions import (
    SHORT,
    PublishedBenchmark,
    PublishedQuestion,
    annotators,
    fields,
    read_json_file,
    read_json_lines,
    read_list,
    read_mapping,
)
from vilau.errors import DataError

COCO = "val2014/COCO_val2014_{:012d}.jpg"
POPE_SETTINGS = ("random", "popular", "adversarial")
MME_FOLDER = "MME_Benchmark_release_version"
MME_CATEGORIES = (
    "artwork", "celebrity", "code_reasoning", "color", "commonsense_reasoning", "count", "existence", "landmark",
    "numerical_calculation", "OCR", "position", "posters", "scene", "text_translation",
)  # fmt: skip
"""A folder each; perception sums ten of them and cognition four, so a part of them is another number."""
MME_ENDING = " Please answer yes or no."
IMAGE_SUFFIXES = (".jpg", ".png", ".jpeg")
REASONING = (
    "First please perform reasoning, and think step by step to provide best answer to the "
    "following question: \n\n"
)
"""What lmms-eval's MM-Vet puts first."""
UNANSWERABLE = "\nWhen the provided information is insufficient, respond with 'Unanswerable'."


def read_vqav2(folder: Path, ending: str = SHORT) -> list[PublishedQuestion]:
    """Questions and annotations of VQA's own files, whatever their year; pictures of COCO val2014."""
    asked = _only(folder, "*OpenEnded_mscoco_val2014_questions.json")
    truths = _only(folder, "*mscoco_val2014_annotations.json")
    given = (
        fields(row, ("question_id", "answers"), truths) for row in read_list(truths, "annotations")
    )
    by_id = {number: annotators(answers, truths) for number, answers in given}
    found = []
    for row in read_list(asked, "questions"):
        number, image, question = fields(
            row, ("question_id", "image_id", "question"), asked, texts=("question",)
        )
        if not isinstance(image, int):
            raise DataError(
                f"{asked}, question {number} has the image_id {image!r}; it must be COCO's number. Put the published "
                "file there."
            )
        if number not in by_id:
            raise DataError(
                f"{truths} has no question {number} of {asked.name}; put the pair there."
            )
        columns = {"question_id": number, "question": question, "answers": by_id[number]}
        media = (folder / COCO.format(image),)
        found.append(PublishedQuestion(question + ending, columns, media))
    return found


def read_okvqa(folder: Path) -> list[PublishedQuestion]:
    """OK-VQA comes in VQA's form; its prompt holds VizWiz's sentence, as in lmms-eval."""
    return read_vqav2(folder, UNANSWERABLE + SHORT)


def read_vizwiz(folder: Path) -> list[PublishedQuestion]:
    """``val.json`` [{image, question, answers}], ten annotators each; pictures in ``val``, named as in the file."""
    path = folder / "val.json"
    content = read_json_file(path)
    if not isinstance(content, list):
        raise DataError(f"{path} is no list of questions; put VizWiz's val.json there.")
    found = []
    for row in content:
        image, question, answers = fields(
            row, ("image", "question", "answers"), path, texts=("image", "question")
        )
        given = annotators(answers, path)
        columns = {"question_id": Path(image).stem, "question": question, "answers": given}
        prompt = question.capitalize() + UNANSWERABLE + SHORT
        found.append(PublishedQuestion(prompt, columns, (folder / "val" / image,)))
    return found


def read_gqa(folder: Path) -> list[PublishedQuestion]:
    """``testdev_balanced_questions.json``: {id: {question, answer, imageId}}."""
    path = folder / "testdev_balanced_questions.json"
    found = []
    for number, row in read_mapping(path).items():
        question, answer, image = fields(
            row, ("question", "answer", "imageId"), path, texts=("question", "answer")
        )
        columns = {"id": number, "question": question, "answer": answer}
        media = (folder / "images" / f"{image}.jpg",)
        found.append(PublishedQuestion(question + SHORT, columns, media))
    return found


def read_textvqa(folder: Path) -> list[PublishedQuestion]:
    """``TextVQA_0.5.1_val.json``; no OCR tokens in the prompt, as in lmms-eval."""
    path = folder / "TextVQA_0.5.1_val.json"
    found = []
    for row in read_list(path, "data"):
        number, image, question, answers = fields(
            row, ("question_id", "image_id", "question", "answers"), path, texts=("question",)
        )
        given = annotators(answers, path)
        columns = {"question_id": number, "question": question, "answers": given}
        media = (folder / "train_images" / f"{image}.jpg",)
        found.append(PublishedQuestion(question.capitalize() + SHORT, columns, media))
    return found


def read_pope(folder: Path) -> list[PublishedQuestion]:
    """``coco_pope_<setting>.json``, one object a line: {question_id, image, text, label}."""
    found = []
    for setting in POPE_SETTINGS:
        path = folder / f"coco_pope_{setting}.json"
        for row in read_json_lines(path):
            number, image, text, label = fields(
                row,
                ("question_id", "image", "text", "label"),
                path,
                texts=("image", "text", "label"),
            )
            columns = {
                "question_id": number,
                "question": text,
                "answer": label,
                "category": setting,
            }
            found.append(PublishedQuestion(text + SHORT, columns, (folder / "val2014" / image,)))
    return found


def read_mme(folder: Path) -> list[PublishedQuestion]:
    """A folder per category: pictures, and a text of two lines ``question<tab>answer`` for each."""
    found = []
    for category in sorted(path for path in (folder / MME_FOLDER).iterdir() if path.is_dir()):
        images = category / "images" if (category / "images").is_dir() else category
        texts = category / "questions_answers_YN"
        texts = texts if texts.is_dir() else category
        for image in sorted(p for p in images.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES):
            for question, answer in _mme_lines(texts / f"{image.stem}.txt"):
                pair = f"{category.name}/{image.name}"
                columns = {
                    "question_id": pair, "question": question, "answer": answer, "category": category.name,
                }  # fmt: skip
                prompt = question.replace(MME_ENDING, "") + SHORT
                found.append(PublishedQuestion(prompt, columns, (image,), together=pair))
    return found


def _mme_lines(path: Path) -> list[tuple[str, str]]:
    try:
        lines = [
            line.split("\t")
            for line in path.read_text(encoding="utf-8").splitlines()
            if line.strip()
        ]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"{path} cannot be read ({reason}); put MME's own folder there.") from error
    if any(len(line) != 2 for line in lines):
        raise DataError(
            f"{path} has a line that is not question, tab, answer; put MME's own file there."
        )
    return [(question.strip(), answer.strip()) for question, answer in lines]


def read_mmvet(folder: Path) -> list[PublishedQuestion]:
    """``mm-vet.json``: {id: {imagename, question, answer, capability}}; lmms-eval's demand to reason stands first."""
    path = folder / "mm-vet.json"
    found = []
    for number, row in read_mapping(path).items():
        image, question, answer, tags = fields(
            row,
            ("imagename", "question", "answer", "capability"),
            path,
            texts=("imagename", "question", "answer"),
        )
        columns = {
            "question_id": number,
            "question": question,
            "answer": answer,
            "capability": ",".join(tags),
        }
        found.append(PublishedQuestion(REASONING + question, columns, (folder / "images" / image,)))
    return found


def _only(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise DataError(
            f"{folder} holds {len(found)} files like {pattern}; put exactly one of them there."
        )
    return found[0]


IMAGE_BENCHMARKS = (
    PublishedBenchmark(
        "vqav2", "VQAv2 val",
        ("v2_OpenEnded_mscoco_val2014_questions.json", "v2_mscoco_val2014_annotations.json", "val2014"),
        read_vqav2, remark="the papers submit test-dev; its answers are not public",
    ),
    PublishedBenchmark(
        "gqa", "GQA test-dev balanced", ("testdev_balanced_questions.json", "images"), read_gqa,
    ),
    PublishedBenchmark(
        "textvqa", "TextVQA val", ("TextVQA_0.5.1_val.json", "train_images"), read_textvqa,
        remark="without OCR tokens in the prompt",
    ),
    PublishedBenchmark(
        "pope", "POPE", (*(f"coco_pope_{setting}.json" for setting in POPE_SETTINGS), "val2014"), read_pope,
        max_new_tokens=128,
    ),
    PublishedBenchmark(
        "mme", "MME", tuple(f"{MME_FOLDER}/{category}" for category in MME_CATEGORIES), read_mme,
    ),
    PublishedBenchmark(
        "mmvet", "MM-Vet", ("mm-vet.json", "images"), read_mmvet, max_new_tokens=1024,
        remark="string match; for MM-Vet's own number give mmvet-for-the-judge.json to its evaluator",
    ),
    PublishedBenchmark(
        "ok_vqa", "OK-VQA val",
        ("OpenEnded_mscoco_val2014_questions.json", "mscoco_val2014_annotations.json", "val2014"),
        read_okvqa,
    ),
    PublishedBenchmark("vizwiz_vqa", "VizWiz val", ("val.json", "val"), read_vizwiz),
)  # fmt: skip
