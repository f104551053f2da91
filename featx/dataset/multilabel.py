"""What there is to say, before anything long, about images that can have several labels each."""

from featx.dataset.image_dataset import ImageDataset
from featx.text import printable


def labels_per_image(dataset: ImageDataset) -> str:
    """Return how many labels an image has, if it can have several, such as `several for an image (1.8 on average)`."""
    n_labels = dataset.labels.sum(axis=1)
    n_without = int((n_labels == 0).sum())
    without = f"; {n_without:,} image{' has' if n_without == 1 else 's have'} none" if n_without else ""
    return f"several for an image ({n_labels.mean():.1f} on average, {n_labels.max()} at most{without})"


def label_shortage(dataset: ImageDataset) -> str:
    """Return a sentence about the first label that cannot be learned; empty if all can, or if images have one class."""
    if not dataset.is_multilabel:
        return ""
    n_train, _ = dataset.class_counts
    for name, n in zip(dataset.class_names, n_train.tolist(), strict=True):
        n_without = dataset.n_train - n
        if n < 2:
            having = "Only one training image has" if n else "No training image has"
        elif n_without < 2:
            having = "All training images but one have" if n_without else "All training images have"
        else:
            continue
        return (
            f"{having} the label {printable(name)}. To learn a label, featx needs two or more training images with it, "
            f"and two or more without it: add images, or leave the label out."
        )
    return ""
