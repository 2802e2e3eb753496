"""What a number must be made of to be quoted as adpur-standard-v1."""

NAME = "adpur-standard-v1"
BLOCKS = {"exact": "v1-exact", "bpda": "v1-bpda", "square": "v1-square"}
"""Names of its attack blocks."""
IMAGES, DRAWS = 512, 20


def missing(images: int, draws: int, trust: str) -> list[str]:
    """What keeps a run from being quoted; empty if nothing does.

    >>> missing(128, 20, "full")
    ['128 images of at least 512']
    """
    told = []
    if images < IMAGES:
        told.append(f"{images} images of at least {IMAGES}")
    if draws < DRAWS:
        told.append(f"{draws} draws of at least {DRAWS}")
    if trust != "full":
        told.append(f"trust report {trust}, not full")
    return told
