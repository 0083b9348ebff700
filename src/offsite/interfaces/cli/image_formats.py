"""The formats of image files, as qemu-img calls them, and the ends of names that stand for them."""

from __future__ import annotations

QEMU_FORMATS = {
    ".qcow2": "qcow2", ".qcow": "qcow", ".vmdk": "vmdk", ".vdi": "vdi", ".vhdx": "vhdx", ".vhd": "vpc", ".vpc": "vpc"
}  # fmt: skip
RAW = "raw"
# No others: qemu-img knows some that are directories, or other machines.
FORMATS = (RAW, *dict.fromkeys(QEMU_FORMATS.values()))
