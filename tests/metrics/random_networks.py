"""Published networks with random weights, in files like the published ones."""

from pathlib import Path

import pytest
import torch
import torch_fidelity.feature_extractor_inceptionv3 as fidelity

from vilau.metrics.detector_card import drawn_images


def random_inception(file: Path) -> Path:
    """Write torch-fidelity's Inception with random weights, sure of another class for every drawn picture."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fidelity, "load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(fidelity.FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        torch.manual_seed(0)
        network = fidelity.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
    # Random features are nearly alike: without what they share, and enlarged, they tell pictures apart.
    (features,) = network(drawn_images(6)[0])
    mean = torch.nn.functional.normalize(features.mean(dim=0), dim=0)
    weight = network.fc.weight.data
    weight -= (weight @ mean)[:, None] * mean
    weight *= 3.0 / (features @ weight.T).std()
    torch.save(network.state_dict(), file)
    return file
