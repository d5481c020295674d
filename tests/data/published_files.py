"""Published benchmarks in their own file layouts, tiny: made by hand for the readers and the verb."""

from __future__ import annotations

import base64
import csv
import io
import json
from pathlib import Path
from typing import Any

from PIL import Image

SIDE = 16


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
        return
    text = content if isinstance(content, str) else json.dumps(content)
    path.write_text(text, encoding="utf-8")


def picture(path: Path, value: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (SIDE, SIDE), (value, 100, 200)).save(path)


def video(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = [Image.new("RGB", (SIDE, SIDE), (20 * n, 0, 0)) for n in range(6)]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=100)


def coco(folder: Path, *numbers: int) -> None:
    for number in numbers:
        picture(folder / "val2014" / f"COCO_val2014_{number:012d}.jpg", number)


def vqa(folder: Path, prefix: str = "v2_") -> None:
    asked = [{"question_id": 10 + n, "image_id": n, "question": f"what is {n}?"} for n in (1, 2)]
    truths = [
        {
            "question_id": 10 + n,
            "answers": [{"answer": "red", "answer_id": k + 1} for k in range(10)],
        }
        for n in (2, 1)
    ]
    write(folder / f"{prefix}OpenEnded_mscoco_val2014_questions.json", {"questions": asked})
    write(folder / f"{prefix}mscoco_val2014_annotations.json", {"annotations": truths})
    coco(folder, 1, 2)


def vizwiz(folder: Path) -> None:
    said = ["red"] * 8 + ["unanswerable"] * 2
    row = {
        "image": "VizWiz_val_00000007.jpg",
        "question": "what COLOR is this? thank you",
        "answers": [{"answer_confidence": "yes", "answer": one} for one in said],
        "answer_type": "other",
        "answerable": 1,
    }
    write(folder / "val.json", [row])
    picture(folder / "val" / "VizWiz_val_00000007.jpg")


def gqa(folder: Path) -> None:
    write(
        folder / "testdev_balanced_questions.json",
        {"a": {"question": "What color is it?", "answer": "red", "imageId": "n7"}},
    )
    picture(folder / "images" / "n7.jpg")


def textvqa(folder: Path) -> None:
    row = {
        "question_id": 3,
        "image_id": "i",
        "question": "what BRAND is it?",
        "answers": ["red"] * 10,
    }
    write(folder / "TextVQA_0.5.1_val.json", {"data": [row]})
    picture(folder / "train_images" / "i.jpg")


def pope(folder: Path) -> None:
    for setting in ("random", "popular", "adversarial"):
        lines = [
            {"question_id": n, "image": "COCO_val2014_000000000001.jpg", "text": "Is there a cat?", "label": truth}
            for n, truth in enumerate(("yes", "no"))
        ]  # fmt: skip
        write(folder / f"coco_pope_{setting}.json", "\n".join(map(json.dumps, lines)) + "\n")
    coco(folder, 1)


MME_FOLDER = "MME_Benchmark_release_version"
MME_CATEGORIES = (
    "existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark", "artwork", "OCR",
    "commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning",
)  # fmt: skip


def mme(folder: Path) -> None:
    top = folder / MME_FOLDER
    lines = "Is it red? Please answer yes or no.\tYes\nIs it blue? Please answer yes or no.\tNo\n"
    for category in MME_CATEGORIES:
        if category != "posters":
            picture(top / category / "1.jpg")
            write(top / category / "1.txt", lines)
    picture(top / "posters" / "images" / "2.png")
    write(top / "posters" / "questions_answers_YN" / "2.txt", lines)


def seedbench(folder: Path, *, videos: bool = False) -> None:
    options = {f"choice_{letter}": f"{letter} thing" for letter in "abcd"}
    rows = [
        {
            "question_id": n,
            "question": "what?",
            "answer": "B",
            "data_type": kind,
            "data_id": name,
            **options,
        }
        for n, (kind, name) in enumerate((("image", "x.png"), ("video", "y.gif")))
    ]
    write(folder / "SEED-Bench.json", {"questions": rows})
    picture(folder / "SEED-Bench-image" / "x.png")
    if videos:
        video(folder / "SEED-Bench-video" / "y.gif")


MMBENCH_COLUMNS = (
    "index", "question", "hint", "A", "B", "C", "D", "answer", "category", "image", "source", "l2-category",
    "comment", "split",
)  # fmt: skip


def encoded(value: int, padding: int = 0) -> str:
    """A picture as MMBench's table holds it, with bytes behind it that no decoder reads."""
    file = io.BytesIO()
    Image.new("RGB", (SIDE, SIDE), (value, 100, 200)).save(file, "JPEG")
    file.write(bytes(padding))
    return base64.b64encode(file.getvalue()).decode()


def mmbench_rows() -> list[dict[str, str]]:
    """Question 7 with two options, question 3 with four and a hint of two lines, in all rotations, mixed up."""
    found = []
    for number, options, hint in (
        (7, ["cat", "dog"], ""),
        (3, ["1", '2"', "3", "4"], "Read it.\nThen say."),
    ):
        for step in reversed(range(len(options))):
            turned = options[step:] + options[:step]
            cells = dict(zip("ABCD", [*turned, "", ""], strict=False))
            found.append({
                "index": str(number + step * 1_000_000), "question": f"which, {number}?", "hint": hint, **cells,
                "answer": "ABCD"[turned.index(options[0])], "category": "ocr", "image": encoded(number),
                "source": "made", "l2-category": "perception", "comment": "", "split": "dev",
            })  # fmt: skip
    # A table may name the row whose picture it shows again.
    found[-1]["image"] = found[-2]["index"]
    return found


def mmbench(folder: Path, rows: list[dict[str, str]] | None = None) -> None:
    file = io.StringIO()
    table = csv.DictWriter(file, MMBENCH_COLUMNS, delimiter="\t", lineterminator="\n")
    table.writeheader()
    table.writerows(mmbench_rows() if rows is None else rows)
    write(folder / "mmbench_dev_en_20231003.tsv", file.getvalue())


def scienceqa(folder: Path) -> None:
    shared = {
        "question": "Which is it?", "choices": ["a rock", "a leaf", "a fish"], "answer": 1, "task": "closed choice",
        "grade": "grade2", "subject": "natural science", "lecture": "", "solution": "",
    }  # fmt: skip
    problems = {
        "4": {**shared, "hint": "It grows.\nIt is green.", "image": "image.png", "split": "test"},
        "5": {**shared, "hint": "", "image": None, "split": "test"},
        "6": {**shared, "hint": "", "image": "image.png", "split": "test"},
        "8": {**shared, "hint": "", "image": "image.png", "split": "val"},
    }
    write(folder / "problems.json", problems)
    write(folder / "pid_splits.json", {"train": [], "val": ["8"], "test": ["4", "5", "6"]})
    for number in "46":
        picture(folder / "images" / "test" / number / "image.png")


def mmvet(folder: Path) -> None:
    row = {
        "imagename": "v.png",
        "question": "what?",
        "answer": "red<AND>blue",
        "capability": ["rec", "ocr"],
    }
    write(folder / "mm-vet.json", {"v1_0": row})
    picture(folder / "images" / "v.png")


def video_qa(folder: Path) -> None:
    write(
        folder / "test_q.json",
        [{"video_name": "vid1", "question": "what moves", "question_id": "q1"}],
    )
    write(folder / "test_a.json", [{"answer": "cat", "question_id": "q1"}])
    video(folder / "videos" / "v_vid1.gif")


def mjhq(folder: Path) -> None:
    content = {
        "h1": {"prompt": "a cat", "category": "animals"},
        "h0": {"prompt": "a logo", "category": "logo"},
    }
    write(folder / "meta_data.json", content)
    for name, row in content.items():
        picture(folder / "mjhq30k_imgs" / row["category"] / f"{name}.jpg")


def genai(folder: Path) -> None:
    write(folder / "prompts.txt", "\n".join(f"prompt {n}" for n in range(1, 528)))
    write(folder / "genai_skills.json", {"basic": ["00001", "00002"]})


def vbench(folder: Path) -> None:
    content = [
        {"prompt_en": "a cat", "dimension": ["color"]},
        {"prompt_en": "a cat", "dimension": ["scene"]},
    ]
    write(folder / "VBench_full_info.json", content)


WRITERS = {
    "vqav2": vqa, "gqa": gqa, "textvqa": textvqa, "pope": pope, "mme": mme, "seedbench": seedbench, "mmvet": mmvet,
    "ok_vqa": lambda folder: vqa(folder, ""), "msvd_qa": video_qa, "activitynetqa": video_qa, "mjhq": mjhq,
    "genai": genai, "vbench": vbench, "vizwiz_vqa": vizwiz, "mmbench": mmbench, "scienceqa_img": scienceqa,
}  # fmt: skip
