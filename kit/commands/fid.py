from tqdm.auto import tqdm

from utils import UsageError
from utils.device import pick_device

from ..fid import fid, find_weights


def run(
    generated: str = "", reference: str = "", dims: int = 2048, course: bool = False, resize_reference: bool = False,
    download: bool = False, bootstrap: int = 20, device: str = "auto",
) -> None:  # fmt: skip
    """how far samples are from real pictures (Fréchet Inception distance)

    Args:
        generated: a folder that `generate` has written.
        reference: a folder of real pictures.
        dims: features: 2048 (papers), 192 (the course), 768 or 64.
        course: the course's 100 samples at 192 dims, which are too few.
        resize_reference: bring the reference to the samples' size.
        download: fetch the Inception weights if need be, 95 MB; alone, nothing else is done.
        bootstrap: resamplings for the error bar; 0: none.
        device: `auto`, `cpu`, `cuda` or `mps`.
    """
    if not (generated and reference):
        if generated or reference or not download:
            raise UsageError("--generated and --reference name two folders; --download alone fetches the weights")
        print(f"Inception weights: {find_weights(download=True)}")
        return
    with tqdm(desc="pictures", leave=False, disable=None) as bar:
        score = fid(
            generated, reference, dims, course=course, resize_reference=resize_reference, download=download,
            bootstrap=bootstrap, device=pick_device(device), progress=bar.update,
        )  # fmt: skip
    print(score.text)
