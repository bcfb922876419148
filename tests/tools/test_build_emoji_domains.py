import importlib.util
import io
import json
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from PIL import Image

pytest.importorskip("cairosvg", reason="rendering needs CairoSVG: core-tuning[tools]")

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tool():
    path = ROOT / "tools" / "build_emoji_domains.py"
    spec = importlib.util.spec_from_file_location("build_emoji_domains", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # worker processes find `render` by its module's name
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def _pack(path, **files):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            data = json.dumps(content).encode()
            info = tarfile.TarInfo(f"package/{name}.json")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


SQUARE = '<path fill="red" d="M0 0h5v10H0z"/>'
ICONS = {
    "width": 10,
    "height": 10,
    "icons": {
        "cat": {"body": SQUARE},
        "tram": {"body": '<circle cx="5" cy="5" r="5" fill="currentColor"/>'},
        "old": {"body": SQUARE, "hidden": True},
    },
    "aliases": {"house": {"parent": "tram"}},
}
EMOJIS = [
    {"unified": "1F408", "subcategory": "animal-mammal"},
    {"unified": "1F3E0-FE0F", "subcategory": "place-building"},
    {"unified": "1F68A", "subcategory": "transport-ground"},
    {"unified": "2764", "subcategory": "heart"},
]
NAMES = {"1f408": "cat", "1f3e0": "house", "1f68a": "tram", "2764": "cat"}


@pytest.fixture
def packages(tool, tmp_path):
    for package in tool.DOMAINS.values():
        _pack(tool.tarball_path(package, tmp_path), icons=ICONS, chars=NAMES)
    _pack(tool.tarball_path(tool.LABELS, tmp_path), emoji=EMOJIS)
    return tmp_path


def test_render(tool):
    image = Image.open(io.BytesIO(tool.render(tool.svg_document(ICONS, "cat"))))
    assert (image.size, image.mode, image.format) == ((48, 48), "RGB", "WEBP")
    assert image.getpixel((2, 20)) == (255, 0, 0)
    assert image.getpixel((46, 20)) == (255, 255, 255)


def test_an_alias_is_drawn_as_its_parent(tool):
    assert tool.svg_document(ICONS, "house") == tool.svg_document(ICONS, "tram")


def test_zip_is_deterministic_and_compares_equal(tool, packages, tmp_path, capsys):
    for name in ("one.zip", "two.zip"):
        tool.main(["--packages", str(packages), "--zip", str(tmp_path / name), "--workers", "1"])
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "one.zip") as archive:
        names = archive.namelist()
    assert sorted(names)[:3] == [
        "emoji_domains/fluent/animal/1f408.webp",
        "emoji_domains/fluent/building/1f3e0.webp",
        "emoji_domains/fluent/vehicle/1f68a.webp",
    ]
    assert len(names) == 12
    report = tool.compare(tmp_path / "one.zip", tmp_path / "two.zip")
    assert report.startswith("12 equal byte for byte") and report.endswith("byte-identical")


def test_compare_tells_pixels_from_bytes(tool, tmp_path):
    image = Image.new("RGB", (2, 2), "red")
    contents = []
    for colour, form in (("red", "PNG"), ("red", "BMP"), ("blue", "BMP")):
        encoded = io.BytesIO()
        Image.new("RGB", image.size, colour).save(encoded, form)
        contents.append(encoded.getvalue())
    png, bmp, blue = contents
    for name, files in (
        ("built.zip", {"a": png, "b": png, "c": png, "extra": png}),
        ("shipped.zip", {"a": png, "b": bmp, "c": blue, "missing": png, "missing too": png}),
    ):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for member, content in files.items():
                archive.writestr(member, content)
    assert tool.compare(tmp_path / "built.zip", tmp_path / "shipped.zip") == (
        "1 equal byte for byte, 1 equal in pixels only, 1 differ, 2 missing, 1 extra; "
        "the zips are not byte-identical"
    )


def test_at_most_130_a_class_by_sha1(tool):
    emojis = [{"unified": f"{n:X}", "subcategory": "clothing"} for n in range(4096, 4296)]
    names = {f"{n:x}": "x" for n in range(4096, 4296)}
    chosen = tool.choose(emojis, names, ["x"])
    assert len(chosen) == 130
    assert list(chosen) == sorted(names, key=tool._sha1)[:130]


def test_unlabelled_leaves_out_variants_and_duplicates(tool, tmp_path, capsys):
    body = {"body": SQUARE}
    icons = ICONS | {"icons": ICONS["icons"] | {"man-dark": body, "traffic-light": body}}
    categories = {"Flags": ["tram"], "People & Body": ["man-dark"], "Travel": ["traffic-light"]}
    for package in tool.UNLABELLED.values():
        _pack(
            tool.tarball_path(package, tmp_path), icons=icons, metadata={"categories": categories}
        )
    folder = tmp_path / "glyphs"
    tool.main(["--packages", str(tmp_path), "--unlabelled", str(folder), "--workers", "1"])
    assert sorted(path.name for path in folder.iterdir()) == ["DONE", "noto-v1-cat.webp"]
    assert "2 glyphs, 1 distinct" in capsys.readouterr().out


def test_nothing_to_build(tool, capsys):
    with pytest.raises(SystemExit):
        tool.main([])
    assert "give --zip FILE or --unlabelled FOLDER" in capsys.readouterr().err


def test_missing_package_without_npm(tool, tmp_path, monkeypatch):
    monkeypatch.setattr(tool.shutil, "which", lambda _: None)
    with pytest.raises(SystemExit, match=r"emoji-datasource-16\.0\.0\.tgz is missing and npm is"):
        tool.fetch(tool.LABELS, tmp_path)
