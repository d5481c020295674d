"""Which share of the prompts of each category the drawings of MJHQ's twin satisfy, all requirements together."""

from typing import Any

import lightning.pytorch as pl
from torch import Tensor

from vilau.callbacks.category_fid import BENCHMARK, real_pictures
from vilau.callbacks.judging import JudgingCallback
from vilau.callbacks.measuring import drawn_for
from vilau.types import Passport, PromptBatch

DETAILS = {
    "": "",
    "_real": "the prompts' own real pictures: what the judge itself misses",
    "_reconstruction": "ceiling: the tower's reconstructions of real pictures of the prompts",
    "_random_scene": "baseline: real pictures that were not drawn for the prompt",
}


class CategoryJudge(JudgingCallback):
    """Judges the drawings of MJHQ's twin, equally many prompts of one kind in each category.

    * ``test/world_mjhq_followed``: the share of prompts all of whose requirements hold, and
      ``test/world_mjhq_followed/<category>``: ``attribute`` prompts ask for one thing (``a large red star``), ``scene``
      for one on a background, ``spatial_relation`` and ``counting`` for several.
    * ``test/world_mjhq_followed_real`` (and ``/<category>``): the prompts' own real pictures; what the judge sees.
    * ``test/world_mjhq_followed_reconstruction`` (and ``/<category>``): real pictures of the prompts through the tower;
      what no drawing can be expected to pass.
    * ``test/world_mjhq_followed_random_scene`` (and ``/<category>``): real pictures of other prompts of the category.
    * Each of the four with ``_strict`` before the category: by the strict judge, who takes nothing that the renderer
      could not have drawn; with ``_agreement``: the share of pictures of which both judges say the same.

    Args:
        judge: a saved detector's folder, the verifier; None: the shipped one.
    """

    def observe(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any
    ) -> bool:
        """Judge a batch's drawings, its real pictures, their reconstructions, and other real pictures."""
        if not drawn_for(BENCHMARK, outputs, batch):
            return False
        real, other, rebuilt = real_pictures(self, pl_module, batch)
        self.prompts.update(texts=batch.prompts)
        self._add("", outputs.images, batch)
        self._add("_real", real, batch)
        self._add("_reconstruction", rebuilt, batch)
        self._add("_random_scene", other, batch)
        return True

    def _add(self, kind: str, images: Tensor, batch: PromptBatch) -> None:
        judged = self.judged(images, batch.requirements)
        for found, (category, *_) in zip(judged, batch.skills, strict=True):
            if found is None:
                continue
            values = {
                kind: found.lenient.exact,
                f"{kind}_strict": found.strict.exact,
                f"{kind}_agreement": found.agree,
            }
            for tail in ("", f"/{category.replace(' ', '_')}"):
                self.means.update({f"{name}{tail}": [float(v)] for name, v in values.items()})

    def finish(self, trainer: pl.Trainer, pl_module: pl.LightningModule, split: str) -> None:
        """Report."""
        digest, _ = self.prompts.compute()
        for name, (mean, count) in self.means.compute().items():
            kind = name.split("/")[0].removesuffix("_strict").removesuffix("_agreement")
            agreed = name.split("/")[0].endswith("_agreement")
            passport = Passport(
                metric="share of prompts of which both judges say the same"
                if agreed
                else "share of prompts satisfied",
                features=self.judges_of(name),
                reference=f"{BENCHMARK} prompts {digest}",
                num_samples=count,
                details=DETAILS[kind],
            )
            self.report(pl_module, f"{split}/{BENCHMARK}_followed{name}", mean, passport)
