"""Drawing the prompts of a published benchmark into the files its scorer reads, and the commands that score."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vilau.apps.files import check_writable, write_png, written

if TYPE_CHECKING:
    from vilau.data.published.drawings import Wanted

CLIP_FPS = 8.0
VBENCH_DIMENSIONS = (
    "subject_consistency", "background_consistency", "temporal_flickering", "motion_smoothness",
    "dynamic_degree", "aesthetic_quality", "imaging_quality", "object_class", "multiple_objects",
    "human_action", "color", "spatial_relationship", "scene", "temporal_style", "appearance_style",
    "overall_consistency",
)  # fmt: skip
SCORE_GENAI = '''"""Score GenAI-Bench pictures with VQAScore; written by `vilau eval`. Needs t2v-metrics 3.0."""

import json
import statistics
import sys
from pathlib import Path

import t2v_metrics

folder, prompts, skills = map(Path, sys.argv[1:4])
texts = prompts.read_text(encoding="utf-8").splitlines()
score = t2v_metrics.VQAScore(model="clip-flant5-xxl")
# Pictures and skills are counted from 1; after `--limit` only the first are drawn.
drawn = {number: folder / f"{number:05d}.png" for number in range(1, len(texts) + 1)}
scores = {
    number: float(score(images=[str(path)], texts=[texts[number - 1]])[0][0])
    for number, path in drawn.items()
    if path.exists()
}
print("all", statistics.mean(scores.values()), f"of {len(scores)} of {len(texts)} prompts")
for skill, numbers in json.loads(skills.read_text(encoding="utf-8")).items():
    known = [scores[int(number)] for number in numbers if int(number) in scores]
    if known:
        print(skill, statistics.mean(known), f"of {len(known)}")
'''


def draw_benchmark(model: Any, name: str, folder: Path, out: Path, args: Any) -> list[str]:
    """Draw what is not in ``out/<name>`` yet and return the commands that score it.

    The seed of each drawing is made from ``--seed`` and its place in the whole list, so it does not depend on what
    was finished before.
    """
    from vilau.data.published.drawings import DRAWN_BENCHMARKS

    wanted = DRAWN_BENCHMARKS[name].read(folder)[: args.limit]
    target = out / name
    check_writable(target)
    if name == "vbench":
        from vilau.data.media.video import import_av

        import_av("VBench's MP4")
    draw(model, wanted, target, args)
    if name == "mjhq" and args.floors:
        write_floors(model, wanted, folder, out, args)
    return commands(name, folder, out, args)


def draw(model: Any, wanted: Sequence[Wanted], target: Path, args: Any) -> None:
    """Draw each prompt whose file is not there; files appear whole or not at all."""
    from vilau.apps.common import batches
    from vilau.data.media.video_files import write_mp4
    from vilau.generation.sampling import image_seed
    from vilau.layers.pixels import to_uint8

    missing = [number for number, one in enumerate(wanted) if not (target / one.file).exists()]
    for batch in batches(missing, args.batch_size, f"drawing into {target}"):
        clips = wanted[batch[0]].file.endswith(".mp4")
        make = model.generate_videos if clips else model.generate_images
        drawn = make(
            [wanted[number].prompt for number in batch],
            guidance_scale=args.guidance_scale,
            seed=[image_seed(args.seed, number) for number in batch],
        )
        for number, picture in zip(batch, to_uint8(drawn).cpu(), strict=True):
            path = target / wanted[number].file
            if clips:
                with written(path) as part:
                    write_mp4(part, picture, fps=CLIP_FPS)
            else:
                write_png(path, picture)


def write_floors(model: Any, wanted: Sequence[Wanted], folder: Path, out: Path, args: Any) -> None:
    """Write what the best drawings could reach: real pictures at the model's size, and through its tokenizer."""
    import torch

    from vilau.apps.common import batches, moved
    from vilau.data.media.pictures import read_images
    from vilau.data.published.drawings import IMAGES
    from vilau.layers.pixels import to_uint8

    size = model.tokenizer.spec.image_size
    kept = ("mjhq-resized", "mjhq-rebuilt")
    missing = [o for o in wanted if not all((out / name / o.file).exists() for name in kept)]
    for batch in batches(missing, args.batch_size, "writing the floors of FID"):
        files = [(folder / IMAGES / one.file).with_suffix(".jpg") for one in batch]
        images = moved(read_images(files, size), model)
        with torch.inference_mode():
            rebuilt = model.tokenizer.decode(model.tokenizer.encode(images))
        for name, pictures in zip(kept, (images, rebuilt), strict=True):
            for one, picture in zip(
                batch, to_uint8(pictures.float().clamp(-1, 1)).cpu(), strict=True
            ):
                write_png(out / name / one.file, picture)


def commands(name: str, folder: Path, out: Path, args: Any) -> list[str]:
    """Return the command lines that score what was drawn, each in its tool's own environment."""
    from vilau.data.published.drawings import IMAGES, PROMPTS, SKILLS, VBENCH

    target = out / name
    if name == "genai":
        script = out / "score_genai.py"
        with written(script) as part:
            part.write_text(SCORE_GENAI, encoding="utf-8")
        paths = [script, target, folder / PROMPTS, folder / SKILLS]
        return ["pip install t2v-metrics==3.0", shlex.join(["python", *map(str, paths)])]
    if name == "vbench":
        return vbench_commands(target, folder / VBENCH, out)
    real = folder / IMAGES
    compared = [(real, target)]
    if args.floors:
        compared += [(real, out / "mjhq-resized"), (real, out / "mjhq-rebuilt")]
    if target.is_dir():
        compared += [(real / one.name, one) for one in sorted(target.iterdir()) if one.is_dir()]
    call = (
        "from cleanfid import fid; import sys; print(fid.compute_fid(*sys.argv[1:], mode='clean'))"
    )
    lines = [shlex.join(["python", "-c", call, str(one), str(other)]) for one, other in compared]
    return ["pip install clean-fid==0.1.35 'scipy<1.18'", *lines]


def vbench_commands(clips: Path, prompts: Path, out: Path) -> list[str]:
    """Return VBench's command lines: static clips are picked out, each dimension is scored, the scores are summed.

    Its front end takes one dimension a call. The sum is made by a script of its repository, which no wheel holds,
    over a zip of the results; a dimension that is not in it counts as 0 there.
    """
    results, still = out / "vbench_results", out / "vbench_static"
    packed, unpacked = out / "vbench_results.zip", out / "vbench_unpacked"
    picked = ["vbench", "static_filter", "--videos_path", clips, "--result_path", still]
    lines = [_line(*picked)]
    for dimension in VBENCH_DIMENSIONS:
        # Flickering is judged on clips in which nothing else moves; the filter leaves them in this folder.
        seen = still / "filtered_videos" if dimension == "temporal_flickering" else clips
        places = ["--videos_path", seen, "--full_json_dir", _twice(prompts)]
        kept = ["--output_path", _twice(results)]
        lines.append(_line("vbench", "evaluate", *places, *kept, "--dimension", dimension))
    total = ["VBench/scripts/cal_final_score.py", "--zip_file", packed, "--model_name", unpacked]
    return [
        "pip install vbench==0.1.5 'detectron2@git+https://github.com/facebookresearch/detectron2.git'",
        *lines,
        "git clone https://github.com/Vchitect/VBench",
        f"(cd {shlex.quote(str(results))} && zip -r {shlex.quote(f'../{packed.name}')} .)",
        _line("python", *total),
    ]


def _line(*words: object) -> str:
    return shlex.join(map(str, words))


def _twice(path: Path) -> str:
    """Quote a path for the shell that VBench's front end starts: it quotes the folder of clips alone."""
    return shlex.quote(str(path))
