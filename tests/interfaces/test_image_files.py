"""Import and export with real files: what comes out is what went in, in every format, or nothing is left."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.interfaces.live_system import PASSWORD, LiveSystem, quickly

MIB = 1 << 20


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 MiB, two stretches of data between holes, and zeroes that are written."""
    path = tmp_path_factory.mktemp("image") / "image.raw"
    with path.open("wb") as file:
        file.truncate(30 * MIB)
        for offset, data in ((3 * MIB, os.urandom(4 * MIB)), (20 * MIB, bytes(2 * MIB)), (29 * MIB, os.urandom(MIB))):
            file.seek(offset)
            file.write(data)
    return path


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_a_raw_image_comes_back_the_same_and_sparse(live: LiveSystem, image: Path, tmp_path: Path) -> None:
    out = live.do("import", "Raw", str(image))
    assert out == "Volume Raw of 30 MiB was imported to pool A.\n"
    (volume,) = live.json("show", "volumes", "Raw")["volumes"]
    assert volume["allocated-size-numeric"] == 5 * MIB, "holes and zeroes take no space"
    out = live.do("export", "Raw", str(tmp_path / "back.raw"))
    assert "30 MiB, 5 MiB of it data" in out
    assert (tmp_path / "back.raw").read_bytes() == image.read_bytes()
    assert (tmp_path / "back.raw").stat().st_blocks * 512 <= 6 * MIB
    assert names_in(tmp_path) == ["back.raw"]
    live.do("delete", "volumes", "Raw")


def test_an_odd_size_is_rounded_up_with_zeroes(live: LiveSystem, tmp_path: Path) -> None:
    (tmp_path / "odd").write_bytes(b"x" * 100_001)
    live.do("import", "Odd", str(tmp_path / "odd"), "--pool", "A")
    live.do("export", "Odd", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == b"x" * 100_001 + bytes(102_400 - 100_001)
    live.do("delete", "volumes", "Odd")


@pytest.mark.needs("qemu-img")
def test_what_qemu_img_knows_goes_in_and_out(live: LiveSystem, image: Path, tmp_path: Path) -> None:
    source, back = tmp_path / "image.qcow2", tmp_path / "back.vmdk"
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", image, source], check=True)
    live.do("import", "Qcow", str(source))
    live.do("export", "Qcow", str(back))
    subprocess.run(["qemu-img", "compare", "-f", "raw", "-F", "vmdk", image, back], check=True, capture_output=True)
    live.do("export", "Qcow", str(tmp_path / "plain"), "--format", "qcow2")
    subprocess.run(["qemu-img", "compare", "-f", "raw", "-F", "qcow2", image, tmp_path / "plain"], check=True)
    assert names_in(tmp_path) == ["back.vmdk", "image.qcow2", "plain"]
    live.do("delete", "volumes", "Qcow")


@pytest.mark.needs("qemu-img")
def test_a_raw_image_that_looks_like_another_format_is_raw(live: LiveSystem, tmp_path: Path) -> None:
    """Whoever writes a volume could otherwise name files of this machine as its backing file."""
    source = tmp_path / "volume.img"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", source, "1G"], check=True)
    live.do("import", "Guest", str(source))
    (volume,) = live.json("show", "volumes", "Guest")["volumes"]
    assert volume["size-numeric"] < MIB
    live.do("delete", "volumes", "Guest")


def test_import_and_export_work_from_elsewhere(live: LiveSystem, image: Path, tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path / "home"), "OFFSITE_PASSWORD": PASSWORD, "OFFSITE_SYSTEM": live.url}
    for words in (["import", "Far", str(image)], ["export", "Far", str(tmp_path / "back")]):
        done = quickly(*words, *live.fingerprint, environment=home)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "back").read_bytes() == image.read_bytes()
    live.do("delete", "volumes", "Far")


def test_an_export_replaces_a_file_only_when_told_to_and_whole(live: LiveSystem, image: Path, tmp_path: Path) -> None:
    live.do("import", "Whole", str(image))
    target = tmp_path / "there"
    target.write_text("precious")
    done = live.offsite("export", "Whole", str(target))
    assert (done.returncode, target.read_text()) == (1, "precious")
    done = live.offsite("export", "Nope", str(target), "--overwrite")
    assert (done.returncode, target.read_text()) == (1, "precious")
    live.do("export", "Whole", str(target), "--overwrite")
    assert target.read_bytes() == image.read_bytes()
    live.do("delete", "volumes", "Whole")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["import", "New", "absent.raw"], "absent.raw cannot be read: No such file"),
        (["import", "a,b", "IMAGE"], "','"),
        (["import", "New", "IMAGE", "--pool", "Z"], "'Z'"),
        (["import", "Taken", "IMAGE"], "'Taken' is in use"),
        (["import", "New", "EMPTY"], "0 B"),
        (["export", "Nope", "new.raw"], "'Nope' does not exist"),
        (["export", "Taken", "absent/new.raw"], "absent cannot be written to"),
    ],
)
def test_each_refusal_names_what_is_wrong_and_leaves_nothing(
    live: LiveSystem, image: Path, tmp_path: Path, words: list[str], sentence: str
) -> None:
    live.offsite("create", "volume", "pool", "A", "size", "1MiB", "Taken")
    before = live.do("show", "volumes"), names_in(tmp_path)
    done = live.offsite(*[{"IMAGE": str(image), "EMPTY": "/dev/null"}.get(word, word) for word in words], cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    assert sentence in done.stderr
    assert (live.do("show", "volumes"), names_in(tmp_path)) == before


def test_a_format_without_qemu_img_is_refused_with_what_to_install(live: LiveSystem, tmp_path: Path) -> None:
    for words in (["import", "New", "x.qcow2"], ["export", "New", "x.qcow2"]):
        done = live.offsite(*words, environment={"PATH": "/nowhere"}, cwd=tmp_path)
        assert (done.returncode, "Debian: qemu-utils" in done.stderr) == (1, True)


@pytest.mark.needs("qemu-img")
def test_a_file_that_qemu_img_cannot_read_is_refused(live: LiveSystem, tmp_path: Path) -> None:
    (tmp_path / "x.qcow2").write_text("no image")
    done = live.offsite("import", "New", str(tmp_path / "x.qcow2"))
    assert (done.returncode, "qemu-img cannot convert" in done.stderr) == (1, True)
    assert names_in(tmp_path) == ["x.qcow2"]
