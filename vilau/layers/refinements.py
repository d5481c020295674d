"""Which refinement each scale of a multi-scale quantiser uses; free of torch, for planning too."""


def shared_refinements(num_scales: int, num_refinements: int) -> list[int]:
    """Return which refinement each scale uses: the one whose place among all is nearest to the scale's.

    The places of four lie a little nearer to the ends than those of other numbers, as published.
    """
    edge = 1 / (3 if num_refinements == 4 else 2) / num_refinements
    # In this order of operations: the published scales tie, and rounding decides.
    step = ((1 - edge) - edge) / max(1, num_refinements - 1)
    places = [n * step + edge for n in range(num_refinements)]
    chosen = []
    for number in range(num_scales):
        distances = [abs(place - number / max(1, num_scales - 1)) for place in places]
        chosen.append(distances.index(min(distances)))
    return chosen
