"""Small data sets as users have them: LMDBs, image folders, zips, IDX files, the LFW tree, attribute files, TFDS."""

import gzip
import io
import json
import tarfile
import zipfile

import lmdb
import numpy as np
from PIL import Image

PATTERNS = {
    "bedroom": "256-%07d",
    "celeba": "None-%07d",
    "celebahq": "256-%05d",
    "ffhq": "256-%05d",
    "horse": "256-%07d",
}
LFW_PEOPLE = {"train": {"Ada_King": 3, "Bo": 1}, "test": {"Cy_de_la_Cruz": 2}}


def scene(seed, width, height):
    """A smooth random Pillow image."""
    small = np.random.default_rng(seed).integers(0, 256, (9, 7, 3), np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image, form):
    buffer = io.BytesIO()
    image.save(buffer, format=form, **({"quality": 95} if form == "JPEG" else {}))
    return buffer.getvalue()


def write_lmdb(path, pattern, values, length=True, subdir=True):
    with (
        lmdb.open(str(path), map_size=1 << 27, subdir=subdir) as environment,
        environment.begin(write=True) as txn,
    ):
        txn.cursor().putmulti([((pattern % i).encode(), value) for i, value in enumerate(values)], append=True)
        if length:
            txn.put(b"length", str(len(values)).encode())
    return path


def small_images(name, count=12, form="JPEG"):
    """Encoded images of the size that the data set `name` has, or a little one."""
    width, height = (178, 218) if name == "celeba" else (70, 70)
    return [encoded(scene(i, width, height), form) for i in range(count)]


def small_lmdb(path, name, count=12, form="JPEG", **options):
    values = small_images(name, count, form)
    return write_lmdb(path, PATTERNS[name], values, **options), values


def write_folder(path, files):
    """{path below `path`: bytes}"""
    for name, value in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(value)
    return path


def write_zip(path, files):
    with zipfile.ZipFile(path, "w") as archive:
        for name, value in files.items():
            archive.writestr(name, value)
    return path


PEAK = """
def peak():
    "The most memory that this process has had, in kB; unlike ru_maxrss not that of its parent."
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
"""  # for scripts of tests


def write_idx(path, array):
    header = bytes((0, 0, 8, array.ndim)) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    data = header + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def write_fashion(folder, suffix=".gz", train=20, test=10):
    """The four IDX files; returns {split: (images, labels)}."""
    folder.mkdir(exist_ok=True)
    made = {}
    for seed, (split, prefix, count) in enumerate((("train", "train", train), ("test", "t10k", test))):
        rng = np.random.default_rng(seed)
        made[split] = rng.integers(0, 256, (count, 28, 28), np.uint8), np.arange(count) % 10
        write_idx(folder / f"{prefix}-images-idx3-ubyte{suffix}", made[split][0])
        write_idx(folder / f"{prefix}-labels-idx1-ubyte{suffix}", made[split][1])
    return made


def write_lfw(folder):
    """The tree, the lists of people, and attributes of all but Bo: number j of a person's image i is i + j / 100."""
    people = LFW_PEOPLE["train"] | LFW_PEOPLE["test"]
    keys = [f"{name}/{name}_{i:04d}.jpg" for name, count in people.items() for i in range(1, count + 1)]
    files = {f"lfw_funneled/{key}": encoded(scene(i, 250, 250), "JPEG") for i, key in enumerate(keys)}
    write_folder(folder, files)
    for split, file in (("train", "peopleDevTrain.txt"), ("test", "peopleDevTest.txt")):
        lines = [f"{name}\t{count}" for name, count in LFW_PEOPLE[split].items()]
        (folder / file).write_text("\n".join([str(len(lines)), *lines]) + "\n")
    heading = "\t".join(["#", "person", "imagenum", *(f"Name {j}" for j in range(73))])
    rows = [
        "\t".join([name.replace("_", " "), str(i), *(f"{i + j / 100}" for j in range(73))])
        for name, count in people.items()
        for i in range(1, count + 1)
        if name != "Bo"
    ]
    (folder / "lfw_attributes.txt").write_text("\n".join(["# made by a test", heading, *rows]) + "\n")
    return files


EMOJI = {  # characters: (category, subcategory, whether it has skin tones), as npm's emoji-datasource-google lists them
    "1f600": ("Smileys & Emotion", "face-smiling", False),
    "1f63a": ("Smileys & Emotion", "cat-face", False),
    "1f44b": ("People & Body", "hand-fingers-open", True),
    "1f471": ("People & Body", "person", True),
    "1f468-200d-1f9b0": ("People & Body", "person", True),
    "1f469-200d-1f9b0": ("People & Body", "person", True),
    "1f3c3-200d-2640-fe0f": ("People & Body", "person-activity", True),
    "1f46b": ("People & Body", "family", True),
    "1f468-200d-1f467": ("People & Body", "family", False),
    "1f40b": ("Animals & Nature", "animal-marine", False),
    "1f1e8-1f1ed": ("Flags", "country-flag", False),
    "2640-fe0f": ("Symbols", "gender", False),
}
TONES = ("1f3fb", "1f3fc", "1f3fd", "1f3fe", "1f3ff")


def emoji_package():
    """{path: bytes} of a small package: pictures of 64 x 64 on transparent ground, each of another colour."""
    listed, files = [], {}
    for number, (characters, (category, subcategory, toned)) in enumerate(EMOJI.items()):
        first, *rest = characters.split("-")
        names = [characters, *("-".join([first, tone, *rest]) for tone in TONES if toned)]
        for tone, name in enumerate(names):
            picture = Image.new("RGBA", (64, 64))
            picture.paste((20 * number, 40 * tone, 99, 255), (16, 16, 48, 48))
            files[f"img/google/64/{name}.png"] = encoded(picture, "PNG")
        entry = {"image": f"{characters}.png", "category": category, "subcategory": subcategory}
        entry |= {"sort_order": number + 1, "has_img_google": True}
        if toned:
            tones = {tone: {"image": f"{name}.png"} for tone, name in zip(TONES, names[1:], strict=True)}
            entry["skin_variations"] = {tone.upper(): e | {"has_img_google": True} for tone, e in tones.items()}
        listed.append(entry)
    listed.append(listed[0] | {"image": "1fae9.png", "sort_order": 0, "has_img_google": False})
    listed.reverse()  # theirs goes by the characters
    return {"emoji.json": json.dumps(listed).encode(), "img/google/sheets/64.png": b"not looked at"} | files


def write_tgz(path, files):
    """As `npm pack` does: all below package/."""
    with tarfile.open(path, "w:gz") as archive:
        for name, value in files.items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(value)
            archive.addfile(member, io.BytesIO(value))
    return path
