"""Labels by name: no image gets another's; lists and tables in the forms of Kaggle, torchvision, Excel and Windows."""

import numpy as np
import pytest

from diffrep_jax.data import attribute_list, names, open_dataset, prepare
from diffrep_jax.errors import UserError
from tests.made_data import small_images, write_folder, write_lmdb, write_zip

IMAGE = small_images("any", 1, "PNG")[0]
FACES = [f"{i:06d}.jpg" for i in range(1, 7)]
TRAITS = [f"Trait_{j}" for j in range(40)]
SIGNS = np.random.default_rng(0).choice([-1, 1], (6, 40))


def pictures(folder, keys):
    return write_folder(folder, dict.fromkeys(keys, IMAGE))


def request(data_dir, name="folder", split="all", attributes=True, size=8):
    return open_dataset(name, split=split, image_size=size, channels=3, data_dir=data_dir, attributes=attributes)


def labelled(dataset):
    """{key: class name}"""
    labels = (dataset[i]["label"] for i in range(len(dataset)))
    return {dataset.source.key(int(e)): dataset.class_names[n] for e, n in zip(dataset.entries, labels, strict=True)}


# --- which row is whose


@pytest.mark.parametrize(
    ("keys", "rows"),  # as many of both, in the order in which they belong together
    [
        (["cat/1.jpg", "dog/1.jpg"], ["cat/1.jpg", "dog/1.jpg"]),
        (["a.1.jpg", "a.2.jpg"], ["a.1", "a.2"]),  # dots are part of the name
        (["a.1.jpg", "a.2.jpg"], ["a.1.png", "a.2.png"]),
        (["pack/cat/1.jpg", "pack/dog/1.jpg"], ["cat/1", "dog/1"]),
        (["cat/1.jpg", "dog/1.jpg"], ["/home/me/cat/1.jpg", "/home/me/dog/1.jpg"]),
        (["cat/1.jpg", "dog/1.jpg"], [r".\cat\1.jpg", r"C:\data\dog\1.jpg"]),
        (["1.jpg", "1.png"], ["1.jpg", "1.png"]),
        (["x/1.jpg", "x/1.png"], ["1.png", "1.jpg"][::-1]),
        (["256-00000", "256-00001"], ["256-00000", "256-00001"]),
        (["1.JPG", "2.Jpeg"], ["1.jpg", "2.jpg"]),
        (["sub/0001.jpg", "other/0001.jpg"], ["sub/0001.jpg", "0001.jpg"]),  # unique once the other has its own
        (["sub/a.b.jpg", "other/a.jpg"], ["a.b", "a"]),
        (["caf\u00e9.jpg", "ete\u0301.jpg"], ["cafe\u0301.jpg", "et\u00e9"]),  # macOS writes accents apart
    ],
)
def test_a_row_belongs_to_the_image_whose_path_it_is_or_ends(keys, rows):
    assert names.match(keys, {row: i for i, row in enumerate(rows)}, "x.csv") == list(range(len(keys)))


@pytest.mark.parametrize(
    ("keys", "rows", "expected"),
    [
        (["cat/3.jpg", "dog/3.jpg"], ["cat/3.jpg"], [0, None]),  # a folder contradicts
        (["dog/3.jpg"], ["cat/3.jpg"], [None]),
        (["1.jpg", "old/1.jpg"], ["1.jpg"], [0, None]),  # the row has an image of the same path
        (["1.jpg", "1.png"], ["1.jpg"], [0, None]),
        (["a.b.jpg"], ["a"], [None]),
    ],
)
def test_no_label_is_made_up(keys, rows, expected):
    assert names.match(keys, {row: i for i, row in enumerate(rows)}, "x.csv") == expected


@pytest.mark.parametrize(
    ("keys", "rows", "message"),
    [
        (["cat/3.jpg", "dog/3.jpg"], ["3.jpg"], "the row of '3.jpg' may be that of 'cat/3.jpg' or of 'dog/3.jpg'"),
        (["1.jpg", "1.png"], ["1"], "may be that of '1.jpg' or of '1.png'"),
        (["x/cat/1.jpg"], ["cat/1.jpg", "x/cat/1.png", "1.jpg"], "has the rows 'cat/1.jpg' and '1.jpg' for the image"),
        (["1.jpg"], ["./1.jpg", "1.jpg"], "2 rows for 1 names"),
        (["sub/0001.jpg", "other/0001.jpg"], ["0001"], "may be that of 'sub/0001.jpg' or of 'other/0001.jpg'"),
        (["\u00e9.jpg", "e\u0301.jpg"], ["\u00e9.jpg"], "two images have names that look alike"),
    ],
)
def test_what_is_not_clear_is_refused(keys, rows, message):
    with pytest.raises(UserError, match=message):
        names.match(keys, {row: i for i, row in enumerate(rows)}, "x.csv")


@pytest.mark.parametrize("form", ["folder", "zip"])
def test_an_image_without_a_row_is_refused_not_given_anothers(tmp_path, form):
    keys = [f"{kind}/{i}.jpg" for kind in ("cat", "dog") for i in (1, 2, 3)]
    if form == "folder":
        pictures(tmp_path, keys)
    else:
        write_zip(tmp_path / "a.zip", dict.fromkeys(keys, IMAGE))
    rows = [f"{key},{key[:3]}" for key in keys]
    (tmp_path / "labels.csv").write_text("\n".join(["file,class", *rows[:-1]]))
    with pytest.raises(UserError, match="5 rows, .* 6 images, of which 1 have no row, such as 'dog/3.jpg'"):
        request(tmp_path, attributes=False)
    (tmp_path / "labels.csv").write_text("\n".join(["file,class", *rows]))
    assert labelled(request(tmp_path, attributes=False)) == {key: key[:3] for key in keys}


@pytest.mark.parametrize(
    ("rows", "cause"),
    [
        (["1.jpg", "2.jpg", "10.jpg"], "'1.jpg' has lost leading zeros"),
        (["000001.JPEG", "B.jpg"], "such as '000002.jpg'"),
        (["000001.jpg", "000002.jpg", "B.jpg"], "'B.jpg' differs in capital letters"),
        (["x/000001.jpg", "000002.jpg", "b.jpg"], "'x/000001.jpg' is in another folder"),
    ],
)
def test_the_likely_cause_is_named(tmp_path, rows, cause):
    folder = "y/" if "x/" in rows[0] else ""
    pictures(tmp_path, [f"{folder}000001.jpg", "000002.jpg", "b.jpg"])
    (tmp_path / "labels.csv").write_text("file,class\n" + "".join(f"{row},a\n" for row in rows))
    with pytest.raises(UserError, match=cause) as caught:
        request(tmp_path)
    assert "\n" not in str(caught.value)


# --- labels.csv


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("file;class\n1.png;a\n", "has semicolons between its columns: save it with commas"),
        ("file;age;x,y\n1.png;3;1,5\n", "has semicolons between its columns"),
        ("file\tclass\n1.png\ta\n", "has tabs between its columns"),
        ("file|class\n1.png|a\n", "has bars between its columns"),
        ("file class\n1.png a\n2.png b\n", "has blanks between its columns"),
        ('file,age\n1.png,"1,5"\n2.png,"-,5"\n', "has decimal commas in column 'age', such as '1,5': write points"),
        ("id,file,class\n1,2.png,a\n2,1.png,b\n", "has its file names in column 'file', not in the first one"),
        ("file,age\n1.png,1\n1.png,2\n2.png,2\n", "has 3 rows for 2 names, '1.png' twice"),
        ("1.png,a\n2.png,b\n", "begins with the image '1.png': line 1 is the heading"),
        ("file,age,age\n1.png,1,2\n2.png,1,2\n", "has two columns 'age'"),
        ("file,,age\n1.png,1,2\n2.png,1,2\n", "has no name for column 2"),
        ("file,age\n1.png,1\n,2\n", "has a line without a file name, ,2"),
        ("file,age\n1.png,1\n2.png,\n", "has numbers in column 'age', but '' for '2.png'"),
        ("file,age\n1.png,1\n2.png,nan\n", "has numbers in column 'age', but 'nan' for '2.png'"),
        ("file,age\n1.png,1e99\n2.png,3\n", "has numbers in column 'age', but '1e99' for '1.png'"),
        ("file,age\n1.png,1e39\n2.png,3\n", "has numbers in column 'age', but '1e39' for '1.png'"),
        (
            "file,age\n1.png,nan\n2.png,NaN\n",
            "has no value in column 'age', but 'nan' for '1.png': give each image one",
        ),
        ("file,hat,age\n1.png,1,-inf\n2.png,0,NA\n", "has no value in column 'age', but '-inf' for '1.png'"),
        ("file,age,kind\n1.png,,a\n2.png,n/a,b\n", "has no value in column 'age', but '' for '1.png'"),
        ("file,age\n1.png,1e39\n2.png,-1e39\n", "has no value in column 'age', but '1e39' for '1.png'"),
        ("file,kind\n1.png,a\n2.png,\n", "has no kind for '2.png'"),
        ("file,class\n1.png,a\n./1.png,a\n2.png,b\n", "has 3 rows for 2 names"),
        ("file,class\n1.png,a\n2.png,b\0\n", "NUL|null|has"),
        *(
            (blank, "is empty: line 1 is the heading, such as file,class,age")
            for blank in ("", "\n", " ,\n\n", "\ufeff")
        ),
    ],
)
@pytest.mark.filterwarnings("error")
def test_tables_that_are_not_clear_are_refused_with_the_cause(tmp_path, table, message):
    pictures(tmp_path, ["1.png", "2.png"])
    (tmp_path / "labels.csv").write_text(table)
    if "\0" in table:  # newer versions of Python read it
        try:
            request(tmp_path, attributes=False)
        except UserError as error:
            assert "\n" not in str(error)
        return
    with pytest.raises(UserError, match=message) as caught:
        request(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_tables_come_in_any_encoding_and_with_any_line_ends(tmp_path, encoding, end):
    pictures(tmp_path, ["größe/1.png", "größe/2.png"])
    text = end.join(["file,kind,age", r"größe\1.png,Hündin,3", "größe/2.png,Katze,4.5", ",,", ""])
    mark = "\ufeff" if encoding == "utf-16-le" else ""
    (tmp_path / "labels.csv").write_bytes((mark + text).encode(encoding))
    dataset = request(tmp_path)
    assert labelled(dataset) == {"größe/1.png": "Hündin", "größe/2.png": "Katze"}
    assert [example["attributes"].tolist() for example in dataset] == [[3.0], [4.5]]
    (tmp_path / "labels.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match="labels.csv' is not in UTF-8 or UTF-16.*: save it as UTF-8"):
        request(tmp_path)


@pytest.mark.parametrize(
    ("cells", "values", "binary"),
    [
        ("-1 1 1", [0, 1, 1], True),
        ("0 1 0", [0, 1, 0], True),
        ("-1.0 1.0 -1.0", [0, 1, 0], True),
        ("-1 -1 -1", [0, 0, 0], True),
        ("True False true", [1, 0, 1], True),
        ("-1 0 1", [-1, 0, 1], False),  # a measure
        ("-1 1 2", [-1, 1, 2], False),
    ],
)
def test_columns_of_signs_say_what_an_image_has_or_lacks(tmp_path, cells, values, binary):
    pictures(tmp_path, ["1.png", "2.png", "3.png"])
    rows = [f"{i}.png,{cell}" for i, cell in enumerate(cells.split(), start=1)]
    (tmp_path / "labels.csv").write_text("\n".join(["file,smiles", *rows]))
    dataset = request(tmp_path)
    assert [example["attributes"].item() for example in dataset] == values
    assert dataset.binary_attributes == (binary,)


def test_each_column_is_an_attribute_or_a_measure_by_itself(tmp_path):
    pictures(tmp_path, ["1.png", "2.png", "3.png"])
    rows = ["file,smiles,age,sex,hat", "1.png,-1,30,0,true", "2.png,1,-1,1,false", "3.png,1,1,1,true"]
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    dataset = request(tmp_path)
    assert dict(zip(dataset.attribute_names, dataset.binary_attributes, strict=True)) == {
        "smiles": True,
        "age": False,
        "sex": True,
        "hat": True,
    }
    assert [e["attributes"].tolist() for e in dataset] == [[0, 30, 0, 1], [1, -1, 1, 0], [1, 1, 1, 1]]


# --- folders as classes


@pytest.mark.parametrize(
    ("keys", "classes"),
    [
        (["cat/1.png", "cat/2.png", "dog/1.png"], ["cat", "cat", "dog"]),
        (["photos/cat/1.png", "photos/dog/a/1.png", "photos/dog/b/1.png"], ["cat", "dog", "dog"]),
        (["test/cat/1.png", "train/cat/1.png", "train/dog/1.png"], ["cat", "cat", "dog"]),
        (["1.png", "cat/1.png", "dog/1.png"], None),  # not each is in one
        (["cat/1.png", "cat/2.png"], None),
        (["train/1.png", "test/1.png"], None),
    ],
)
@pytest.mark.parametrize("form", ["folder", "zip"])
def test_folders_are_classes(tmp_path, keys, classes, form):
    data = pictures(tmp_path / "a", keys) if form == "folder" else tmp_path / "a.zip"
    if form == "zip":
        write_zip(data, {f"./{key}": IMAGE for key in keys})
    dataset = request(data, attributes=False)
    if classes is None:
        assert dataset.class_names == () and "label" not in dataset[0]
    else:
        assert labelled(dataset) == dict(zip(keys, classes, strict=True))


# --- lists of attributes


def official(count=None, signs=SIGNS, gap=" "):
    rows = [f"{file}{gap}{gap.join(map(str, row))}" for file, row in zip(FACES, signs, strict=True)]
    return "\n".join([str(count or len(rows)), " ".join(TRAITS), *rows]) + "\n"


def kaggle(signs=SIGNS):
    rows = [",".join([file, *map(str, row)]) for file, row in zip(FACES, signs, strict=True)]
    return "\n".join([",".join(["image_id", *TRAITS]), *rows]) + "\n"


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("list_attr_celeba.txt", official(gap="  ")),
        ("list_attr_celeba.txt", official(signs=(SIGNS > 0).astype(int))),
        ("list_attr_celeba.csv", kaggle()),
        ("Anno/list_attr_celeba.csv", kaggle((SIGNS > 0).astype(int))),
        ("list_attr_celeba.txt", kaggle()),  # renamed
    ],
)
@pytest.mark.parametrize(("end", "encoding"), [("\n", "utf-8"), ("\r\n", "utf-8-sig"), ("\r", "utf-16")])
def test_attributes_in_the_forms_of_authors_torchvision_and_kaggle(tmp_path, file, text, end, encoding):
    faces = dict(zip(FACES, small_images("celeba", 6), strict=True))
    write_folder(tmp_path / "img_align_celeba" / "img_align_celeba", faces)
    (tmp_path / "Anno").mkdir()
    (tmp_path / file).write_bytes(text.replace("\n", end).encode(encoding))
    parts = [request(tmp_path, "celeba", split) for split in ("train", "validation", "test")]
    values = np.concatenate([[example["attributes"] for example in part] for part in parts])
    np.testing.assert_array_equal(values, SIGNS > 0)
    assert parts[0].attribute_names == tuple(TRAITS) and parts[0].binary_attributes == (True,) * 40


def test_an_lmdb_with_file_names_for_keys_has_its_attributes_by_name(tmp_path):
    values = dict(zip(FACES, small_images("celeba", 6), strict=True))
    write_lmdb(tmp_path / "celeba.lmdb", "%06d.jpg", [values[FACES[0]], *values.values()], length=False)  # from 0
    rows = ["000000.jpg " + " ".join(["-1"] * 40), *reversed(official().splitlines()[2:])]
    (tmp_path / "list_attr_celeba.txt").write_text("\n".join(["7", " ".join(TRAITS), *rows]))
    parts = [request(tmp_path, "celeba", split) for split in ("train", "validation", "test")]
    values = np.concatenate([[example["attributes"] for example in part] for part in parts])
    np.testing.assert_array_equal(values[1:], SIGNS > 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (kaggle().replace("Trait_7,", ""), "names 39 attributes, not the published 40"),
        (kaggle().replace("000003.jpg", "000002.jpg"), "has '000002.jpg' more than once among its rows"),
        (kaggle().replace("Trait_7,", "Trait_6,"), "has 'Trait_6' more than once among its attributes"),
        (kaggle(SIGNS * 3), "has the value -?3, where -1 and 1 are known"),
        (kaggle(np.where(SIGNS > 0, 2, 0)), "has the value 2, where 0 and 1 are known"),
        (kaggle().replace("000003.jpg,", "000003.jpg,1,"), "has 41 values for 000003.jpg, not 40"),
        (official().replace(" ", ";"), "names 1 attributes|does not read"),
    ],
)
def test_lists_that_contradict_themselves_are_refused(tmp_path, text, message):
    (tmp_path / "list.txt").write_text(text)
    with pytest.raises(UserError, match=message):
        attribute_list.read(tmp_path / "list.txt", 40)


def test_line_ends_of_another_system_make_no_other_labels(tmp_path):
    (tmp_path / "labels.csv").write_bytes(b"name,age\r\nimg0.png,0\r\n")
    prepare._refuse_other_labels(tmp_path, ("labels.csv", "name,age\nimg0.png,0\n"))
    with pytest.raises(UserError, match="has other labels than the data"):
        prepare._refuse_other_labels(tmp_path, ("labels.csv", "name,age\nimg0.png,1\n"))
