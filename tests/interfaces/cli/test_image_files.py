"""Import and export with real files: what comes out is what went in, in every format, or nothing is left."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from offsite.errors import BadParameter
from offsite.interfaces.cli import qemu_img
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
        (["import", "New", "/dev/null"], "/dev/null is neither a file nor a block device"),
        (["import", "New", "/dev/zero", "--format", "qcow2"], "/dev/zero is neither a file nor a block device"),
        (["import", "New", "/tmp", "--format", "vvfat"], "--format: 'vvfat' is not one of raw, qcow2"),
        (["import", "New", "x", "--format", "nbd"], "--format: 'nbd' is not one of raw, qcow2"),
        (["export", "Taken", "/dev/null", "--overwrite"], "/dev/null is neither a file nor a block device"),
        (["export", "Taken", ".", "--overwrite"], "is neither a file nor a block device"),
        (["export", "Nope", "new.raw"], "'Nope' does not exist"),
        (["export", "Taken", "absent/new.raw"], "absent cannot be written to"),
    ],
)
def test_each_refusal_names_what_is_wrong_and_leaves_nothing(
    live: LiveSystem, image: Path, tmp_path: Path, words: list[str], sentence: str
) -> None:
    empty = image.with_name("empty")
    empty.touch()
    live.offsite("create", "volume", "pool", "A", "size", "1MiB", "Taken")
    before = live.do("show", "volumes"), names_in(tmp_path)
    done = live.offsite(*[{"IMAGE": str(image), "EMPTY": str(empty)}.get(word, word) for word in words], cwd=tmp_path)
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
    assert (done.returncode, "qemu-img cannot read" in done.stderr) == (1, True)
    assert names_in(tmp_path) == ["x.qcow2"]


@pytest.mark.needs("qemu-img")
@pytest.mark.parametrize(
    ("name", "options", "why"),
    [
        ("x.qcow2", ["-f", "qcow2", "-b", "SECRET", "-F", "raw"], "has a backing file"),
        ("x.qcow2", ["-f", "qcow2", "-o", "data_file=SECRET,data_file_raw=on"], "keeps its data in another file"),
        ("x.vmdk", ["-f", "vmdk", "-b", "SECRET.vmdk", "-F", "vmdk"], "has the backing file"),
        ("x.vmdk", ["-f", "vmdk", "-o", "subformat=monolithicFlat"], "has the extent"),
        ("x.qcow", ["-f", "qcow", "-b", "SECRET", "-F", "raw"], "has a backing file"),
    ],
)
def test_an_image_that_names_another_file_is_refused_and_the_other_is_not_copied(
    live: LiveSystem, tmp_path: Path, name: str, options: list[str], why: str
) -> None:
    """Whoever gives an image to import could read any file that the importing user can read."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret" * 200_000)
    subprocess.run(["qemu-img", "create", "-q", "-f", "vmdk", f"{secret}.vmdk", "1M"], check=True)
    words = [each.replace("SECRET", str(secret)) for each in options]
    subprocess.run(["qemu-img", "create", "-q", *words, tmp_path / name, "1M"], check=True)
    done = live.offsite("import", "Stolen", str(tmp_path / name))
    assert done.returncode == 1, done.stdout
    assert why in done.stderr
    assert "'Stolen' does not exist" in live.offsite("show", "volumes", "Stolen").stderr


@pytest.mark.needs("qemu-img")
def test_a_data_file_is_found_before_qemu_img_opens_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`qemu-img info` itself opens it: a pipe there would hang it, a device be read (CVE-2024-4467)."""
    image, data = tmp_path / "x.qcow2", tmp_path / "data"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", f"data_file={data}", image, "1M"], check=True)
    data.unlink()
    os.mkfifo(data)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("qemu-img was let at it"))
    with pytest.raises(BadParameter, match="keeps its data in another file"):
        qemu_img.check_stands_alone(image, "qcow2")


@pytest.mark.parametrize(
    ("program", "sentence"),
    [
        ("sleep 60", "did not identify .* within 0 s"),
        ("echo broken >&2; exit 1", "cannot read .*: broken"),
        ("kill -9 $$", "cannot read .*: it ended with -9"),
        ("echo no JSON", "cannot identify"),
        ("echo []", "the disk of .* has None bytes"),
        ("echo '{\"virtual-size\": 1000000000000000000}'", "the disk of .* has 1000000000000000000 bytes"),
        ('echo \'{"virtual-size": 1, "format-specific": {"data": {"data-file": "/x"}}}\'', "keeps its data in '/x'"),
    ],
)
def test_whatever_qemu_img_does_is_an_error_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, sentence: str
) -> None:
    (tmp_path / "image").touch()
    in_place_of_qemu_img(tmp_path, monkeypatch, program)
    monkeypatch.setattr(qemu_img, "INFO_SECONDS", 0.3 if "sleep" in program else 30.0)
    with pytest.raises(BadParameter, match=sentence):
        qemu_img.check_stands_alone(tmp_path / "image", "vmdk")


@pytest.mark.parametrize(
    ("program", "sentence"),
    [
        ("while :; do printf '(1.00/100%%)\\r'; sleep 0.01; done", "made no progress with .* and was ended"),
        ("echo full >&2; exit 1", "cannot convert .*: full"),
        ("head -c 200000000 /dev/zero > target", "cannot convert .*it ended with|cannot convert .*File size"),
    ],
)
def test_a_conversion_that_hangs_or_grows_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, sentence: str
) -> None:
    in_place_of_qemu_img(tmp_path, monkeypatch, f"cd {tmp_path}; {program}")
    monkeypatch.setattr(qemu_img, "STALL_SECONDS", 1.0)
    with pytest.raises(BadParameter, match=sentence):
        qemu_img.convert(tmp_path / "image", "vmdk", tmp_path / "target", "raw", MIB)


@contextmanager
def loop_device(backing: Path, size_bytes: int) -> Iterator[str]:
    with backing.open("wb") as file:
        file.truncate(size_bytes)
    found = subprocess.run(["losetup", "--find", "--show", backing], check=True, capture_output=True, text=True)
    try:
        yield found.stdout.strip()
    finally:
        subprocess.run(["losetup", "--detach", found.stdout.strip()], check=True)


def in_place_of_qemu_img(directory: Path, monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    script = directory / "qemu-img"
    script.write_text(f"#!/bin/sh\n{program}\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")


@pytest.mark.root
@pytest.mark.needs("losetup", "mkfs.ext4")
def test_a_block_device_is_overwritten_only_when_told_to_and_never_while_it_is_in_use(
    live: LiveSystem, image: Path, tmp_path: Path
) -> None:
    live.do("import", "Disk", str(image))
    with loop_device(tmp_path / "device", 64 * MIB) as device:
        subprocess.run(["mkfs.ext4", "-q", device], check=True)
        before = Path(device).read_bytes()
        done = live.offsite("export", "Disk", device)
        assert (done.returncode, "already exists" in done.stderr) == (1, True)
        (tmp_path / "mnt").mkdir()
        subprocess.run(["mount", device, tmp_path / "mnt"], check=True)
        try:
            done = live.offsite("export", "Disk", device, "--overwrite")
            assert (done.returncode, "mounted or in use" in done.stderr) == (1, True)
        finally:
            subprocess.run(["umount", tmp_path / "mnt"], check=True)
        done = live.offsite("export", "Disk", device, "--overwrite", "--format", "qcow2")
        assert (done.returncode, "only a raw image" in done.stderr) == (1, True)
        assert len(Path(device).read_bytes()) == len(before)
        live.do("export", "Disk", device, "--overwrite")
        assert Path(device).read_bytes()[: 30 * MIB] == image.read_bytes()
    live.do("delete", "volumes", "Disk")
