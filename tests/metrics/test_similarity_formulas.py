"""SSIM by its published formula, and LPIPS on the backbone that losses use."""

import lpips
import pytest
import torch
import torchvision

from vilau.metrics.detector_card import drawn_images
from vilau.metrics.similarity import PairedSimilarity, PerceptualDistance


def pictures() -> tuple[torch.Tensor, torch.Tensor]:
    images = drawn_images(3)[0][..., 8:24, 16:32].contiguous()
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    return images, (images + 25 * noise).round().clamp(0, 255).to(torch.uint8)


def ssim_by_hand(first: torch.Tensor, second: torch.Tensor) -> float:
    """Wang et al. 2004, equation 13, of one image: window by window, 11 pixels and a sigma of 1.5.

    One window around each pixel; over the border the image is mirrored, as torchmetrics has it (the paper's own
    code leaves such windows out).
    """
    offsets = torch.arange(11, dtype=torch.float64) - 5
    line = torch.exp(-(offsets**2) / (2 * 1.5**2))
    window = torch.outer(line, line) / line.sum() ** 2
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    values = []
    padded = (
        torch.nn.functional.pad(image.double(), [5] * 4, "reflect") for image in (first, second)
    )
    for x, y in zip(*padded, strict=True):
        for top in range(first.shape[1]):
            for left in range(first.shape[2]):
                a, b = (part[top : top + 11, left : left + 11] for part in (x, y))
                mean_a, mean_b = (window * a).sum(), (window * b).sum()
                var_a = (window * a * a).sum() - mean_a**2
                var_b = (window * b * b).sum() - mean_b**2
                cov = (window * a * b).sum() - mean_a * mean_b
                above = (2 * mean_a * mean_b + c1) * (2 * cov + c2)
                values.append(above / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)))
    return float(torch.stack(values).mean())


def test_ssim_is_the_published_formula() -> None:
    images, others = pictures()
    metric = PairedSimilarity()
    metric.update(images[:2], others[:2])
    metric.update(images[2:], others[2:])
    by_hand = [ssim_by_hand(*pair) for pair in zip(images, others, strict=True)]
    assert float(metric.compute()["ssim"]) == pytest.approx(sum(by_hand) / 3, rel=1e-4)
    assert 0.1 < sum(by_hand) / 3 < 0.95


def test_lpips_with_vgg_is_the_librarys(tmp_path) -> None:
    torch.manual_seed(0)
    layers = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["D"])
    weights = {f"features.{name}": value for name, value in layers.state_dict().items()}
    torch.save(weights, tmp_path / "vgg.pth")
    library = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False)
    names = {name: "features." + ".".join(name.split(".")[1:]) for name in library.net.state_dict()}
    library.net.load_state_dict({name: weights[theirs] for name, theirs in names.items()})
    pair = [images.float() / 127.5 - 1 for images in pictures()]
    metric = PerceptualDistance("vgg", str(tmp_path / "vgg.pth"))
    metric.update(*pair)
    theirs = float(library(*pair).detach().mean())
    assert float(metric.compute()) == pytest.approx(theirs, rel=1e-4)
    assert theirs > 1e-3
    assert metric.features_name.startswith("vgg ")
