"""Builds the embedded data set `emoji_domains` or the unlabelled glyphs from npm packages.

    python tools/build_emoji_domains.py --zip emoji_domains.zip --compare SHIPPED.zip
    python tools/build_emoji_domains.py --unlabelled FOLDER

The packages come from `npm pack` at the pinned versions, or from `--packages DIR` when it already
holds their tarballs. Rendering needs CairoSVG: `pip install core-tuning[tools]`.

How far the rebuild reaches: the rule for the file list (classes, the choice of at most 130, the
order) was inferred from the shipped zip. With CairoSVG 2.9.1, cairo 1.16, Pillow 13.0 and libwebp
1.6 `--compare` finds all 3,284 images equal byte for byte, none missing, none extra, and the zips
identical. Another cairo may antialias differently and another libwebp may pack the same pixels
differently; `--compare` tells these apart.

The unlabelled glyphs follow the description of the original set (Noto v1, Streamline, OpenMoji;
4,310 images) but not its unknown rule: these are 4,028 distinct images without flags, Unicode
typography and skin-tone variants.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

SIDE = 48
LIMIT = 130
TIMESTAMP = (2026, 1, 1, 0, 0, 0)

DOMAINS = {
    "noto": "@iconify-json/noto@1.2.9",
    "twemoji": "@iconify-json/twemoji@1.2.5",
    "fluent": "@iconify-json/fluent-emoji-flat@1.2.6",
    "mono": "@iconify-json/emojione-monotone@1.2.1",
}
LABELS = "emoji-datasource@16.0.0"
# The monotone package has no table of code points; its names are Noto's.
NAMED_AS = {"mono": "noto"}
CLASSES = {
    "animal": "animal-amphibian animal-bird animal-bug animal-mammal animal-marine animal-reptile",
    "building": "hotel place-building place-other place-religious",
    "clothing": "clothing",
    "face": "face-affection face-concerned face-costume face-glasses face-hand face-hat "
    "face-negative face-neutral-skeptical face-sleepy face-smiling face-tongue face-unwell",
    "food": "drink food-asian food-fruit food-prepared food-sweet food-vegetable",
    "hand": "body-parts hand-fingers-closed hand-fingers-open hand-fingers-partial hand-prop "
    "hand-single-finger hands",
    "person": "person person-activity person-fantasy person-gesture person-resting person-role "
    "person-sport",
    "plant": "plant-flower plant-other",
    "tool": "computer household light-&-video lock medical money musical-instrument office phone "
    "science tool writing",
    "vehicle": "transport-air transport-ground transport-water",
}

UNLABELLED = {
    "noto-v1": "@iconify-json/noto-v1@1.2.5",
    "streamline": "@iconify-json/streamline-emojis@1.2.4",
    "openmoji": "@iconify-json/openmoji@1.2.29",
}
UNPICTORIAL = ("Flags", "Extras Unicode")
SKIN_TONE = re.compile(r"-(light|medium|dark)(-|$)")


class Glyph(NamedTuple):
    """A file to write, relative to the set's folder, and what is drawn on it."""

    path: str
    svg: str


def tarball_path(package: str, folder: Path) -> Path:
    """Return where `npm pack` puts the tarball of a package given as NAME@VERSION."""
    return folder / (package.lstrip("@").replace("/", "-").replace("@", "-") + ".tgz")


def fetch(package: str, folder: Path) -> Path:
    """Return a package's tarball in the folder, fetched with `npm pack` unless it is there."""
    path = tarball_path(package, folder)
    if not path.exists():
        npm = shutil.which("npm")
        if npm is None:
            sys.exit(f"{path} is missing and npm is not installed: install it to fetch {package}.")
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run([npm, "pack", "--silent", package], cwd=folder, check=True)
    return path


def read_member(tarball: Path, name: str) -> Any:
    """Parse one JSON file of a package's tarball."""
    with tarfile.open(tarball) as archive:
        member = archive.extractfile(f"package/{name}")
        if member is None:
            raise FileNotFoundError(f"{tarball} has no package/{name}")
        return json.load(member)


def svg_document(icons: dict[str, Any], name: str) -> str:
    """Wrap an icon's body, from an iconify `icons.json`, in an <svg> with its view box.

    An alias is drawn as its parent; none that is used here flips or turns it.
    """
    while name not in icons["icons"]:
        name = icons["aliases"][name]["parent"]
    icon = icons["icons"][name]
    left, top, width, height = (
        icon.get(key, icons.get(key, default))
        for key, default in (("left", 0), ("top", 0), ("width", 16), ("height", 16))
    )
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'width="{width}" height="{height}" viewBox="{left} {top} {width} {height}">'
        f"{icon['body']}</svg>"
    )


def render(svg: str) -> bytes:
    """Render an SVG document as 48x48 RGB on white, lossless WebP."""
    import cairosvg

    png = cairosvg.svg2png(bytestring=svg.encode(), output_width=SIDE, output_height=SIDE)
    # Compositing here and not in cairo: its white background rounds edges differently.
    drawn = Image.open(io.BytesIO(png)).convert("RGBA")
    image = Image.new("RGBA", drawn.size, "white")
    image.alpha_composite(drawn)
    encoded = io.BytesIO()
    image.convert("RGB").save(encoded, "WEBP", lossless=True, quality=100, method=6)
    return encoded.getvalue()


def render_all(glyphs: list[Glyph], workers: int) -> Iterator[tuple[str, bytes]]:
    """Yield (path, WebP) in the order of the glyphs."""
    with ProcessPoolExecutor(workers) as pool:
        encoded = pool.map(render, [glyph.svg for glyph in glyphs], chunksize=32)
        yield from zip([glyph.path for glyph in glyphs], encoded, strict=True)


def code_points(emoji: dict[str, Any]) -> str:
    """Return an emoji's code points in lower case without variation selectors."""
    return emoji["unified"].lower().replace("-fe0f", "")


def _sha1(text: str) -> str:
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def choose(
    emojis: list[dict[str, Any]], names: dict[str, str], drawn: Iterable[str]
) -> dict[str, str]:
    """Choose a domain's images: at most 130 a class, those of the smallest SHA-1.

    Args:
        emojis: `emoji.json` of emoji-datasource.
        names: code points to icon name.
        drawn: names that the icon set draws.

    Returns:
        Code points to class, in the order of the SHA-1 of the code points.
    """
    class_of = {sub: name for name, subs in CLASSES.items() for sub in subs.split()}
    drawn = set(drawn)
    labels: dict[str, str] = {}
    for emoji in emojis:
        code = code_points(emoji)
        label = class_of.get(emoji["subcategory"].replace(" ", "-"))
        if label is not None and names.get(code) in drawn:
            labels[code] = label
    counts: Counter[str] = Counter()
    chosen: dict[str, str] = {}
    for code in sorted(labels, key=_sha1):
        counts[labels[code]] += 1
        if counts[labels[code]] <= LIMIT:
            chosen[code] = labels[code]
    return chosen


def labelled_glyphs(packages: Path) -> Iterator[Glyph]:
    """Yield every glyph of the four domains."""
    emojis = read_member(fetch(LABELS, packages), "emoji.json")
    for domain, package in DOMAINS.items():
        icons = read_member(fetch(package, packages), "icons.json")
        named_as = fetch(DOMAINS[NAMED_AS.get(domain, domain)], packages)
        names = read_member(named_as, "chars.json")
        for code, label in choose(emojis, names, [*icons["icons"], *icons["aliases"]]).items():
            yield Glyph(
                f"emoji_domains/{domain}/{label}/{code}.webp", svg_document(icons, names[code])
            )


def build_zip(packages: Path, path: Path, workers: int) -> None:
    """Write `emoji_domains.zip`: WebP files, stored, with a fixed time."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, encoded in render_all(list(labelled_glyphs(packages)), workers):
            archive.writestr(zipfile.ZipInfo(name, TIMESTAMP), encoded)


def pixels(encoded: bytes) -> bytes:
    """Decode an image file to its RGB bytes."""
    return Image.open(io.BytesIO(encoded)).convert("RGB").tobytes()


def compare(built: Path, shipped: Path) -> str:
    """Say how many images of two zips are equal."""
    with zipfile.ZipFile(built) as ours, zipfile.ZipFile(shipped) as theirs:
        common = sorted(set(ours.namelist()) & set(theirs.namelist()))
        unequal = [name for name in common if ours.read(name) != theirs.read(name)]
        differ = [name for name in unequal if pixels(ours.read(name)) != pixels(theirs.read(name))]
        missing = len(theirs.namelist()) - len(common)
        extra = len(ours.namelist()) - len(common)
    same = "the zips are byte-identical" if built.read_bytes() == shipped.read_bytes() else ""
    return (
        f"{len(common) - len(unequal)} equal byte for byte, {len(unequal) - len(differ)} equal in "
        f"pixels only, {len(differ)} differ, {missing} missing, {extra} extra; "
        f"{same or 'the zips are not byte-identical'}"
    )


def unlabelled_glyphs(
    source: str, icons: dict[str, Any], categories: dict[str, list[str]]
) -> Iterator[Glyph]:
    """Yield an icon set's pictures: no flags, no Unicode typography, no skin-tone variants."""
    skipped = {name for key in UNPICTORIAL for name in categories.get(key, [])}
    # Elsewhere a tone is part of the name: `police-car-light`.
    people = {name for key, names in categories.items() if "People" in key for name in names}
    for name in sorted(icons["icons"]):
        if name in skipped or icons["icons"][name].get("hidden"):
            continue
        if name in people and SKIN_TONE.search(name):
            continue
        yield Glyph(f"{source}-{name}.webp", svg_document(icons, name))


def build_unlabelled(packages: Path, folder: Path, workers: int) -> None:
    """Write every distinct unlabelled glyph as FOLDER/<set>-<name>.webp, and DONE at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    seen: set[bytes] = set()
    for source, package in UNLABELLED.items():
        tarball = fetch(package, packages)
        categories = read_member(tarball, "metadata.json").get("categories", {})
        icons = read_member(tarball, "icons.json")
        glyphs = list(unlabelled_glyphs(source, icons, categories))
        before = len(seen)
        for name, encoded in render_all(glyphs, workers):
            image = pixels(encoded)
            if image not in seen:
                seen.add(image)
                (folder / name).write_bytes(encoded)
        print(f"{package}: {len(glyphs)} glyphs, {len(seen) - before} distinct")
    (folder / "DONE").write_text(f"{len(seen)} images\n")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--zip", type=Path, help="write the labelled data set to this file")
    parser.add_argument("--compare", type=Path, metavar="ZIP", help="compare --zip with this zip")
    parser.add_argument("--unlabelled", type=Path, metavar="FOLDER", help="write the glyphs here")
    parser.add_argument("--packages", type=Path, metavar="DIR", help="tarballs already fetched")
    parser.add_argument("--workers", type=int, default=2, help="processes that render")
    options = parser.parse_args(arguments)
    if options.zip is None and options.unlabelled is None:
        parser.error("nothing to build: give --zip FILE or --unlabelled FOLDER")
    if options.compare is not None and options.zip is None:
        parser.error("--compare needs --zip FILE, the rebuilt set")
    with tempfile.TemporaryDirectory() as scratch:
        packages = options.packages or Path(scratch)
        if options.zip is not None:
            build_zip(packages, options.zip, options.workers)
        if options.unlabelled is not None:
            build_unlabelled(packages, options.unlabelled, options.workers)
    if options.compare is not None:
        print(compare(options.zip, options.compare))


if __name__ == "__main__":
    main()
