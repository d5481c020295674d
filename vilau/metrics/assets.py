"""The two measuring networks that ship inside the package."""

from pathlib import Path

from vilau.errors import CheckpointError
from vilau.layers.detector import SceneDetector
from vilau.world.scene import WORLD_VERSION

ASSETS = Path(__file__).resolve().parent.parent / "assets"
WORLD_VERIFIER = ASSETS / "world-verifier"
WORLD_FEATURES = ASSETS / "world-features"


def load_world_detector(folder: str | Path) -> SceneDetector:
    """Load a measuring network and make sure it was trained on this version of the drawn world.

    Raises:
        CheckpointError: files are missing or broken, or the network is of another world version.
    """
    detector = SceneDetector.load(folder)
    world = f"drawn-world v{WORLD_VERSION}"
    if detector.trained_on != world:
        raise CheckpointError(
            f"{folder} was trained on '{detector.trained_on}', but the images are of '{world}'; "
            "train it again with `lightning run experiments/pretrain_world_judges.yaml`."
        )
    return detector
