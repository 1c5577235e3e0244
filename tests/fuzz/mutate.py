"""Changes that make a sound file a hostile one: bytes, and what the bytes mean."""

from __future__ import annotations

import json
import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

NUMBERS = (
    *(0, 1, -1, 2, 3, 7, 255, 256, 2**15, 2**31 - 1, 2**31, 2**32, 2**53 + 1, 2**63 - 1, 2**63),
    *(2**64 - 1, 2**64, 10**30, -(2**31), -(2**63), 0.5, -0.0, 1e308, float("nan"), float("inf")),
)
OUTSIDE = "outside"
"""Name of the folder beside the example's that nothing may be read from."""
SECRETS = ("secret.bin", "model.safetensors", "config.json", "secret.yaml")
WORDS = (
    *("", " ", "\0", "a" * 5000, "é\U0001f600", "..", "../..", "/", "/etc/passwd", "~", "~root"),
    *("../../../../../../etc/passwd", f"../{OUTSIDE}/secret.bin", f"../{OUTSIDE}"),
    *(
        f"../{OUTSIDE}/model.safetensors",
        f"../{OUTSIDE}/secret.yaml",
        "C:\\x",
        "file:///etc/passwd",
    ),
    *("true", "null", "None", "F64", "BF16", "I4", "int4", "torchao", "auto", "model", "__class__"),
    *("{{ ''.__class__.__mro__ }}", "os.system", "re:(a+)+$", "*", "LlamaForCausalLM", "pipeline"),
)
_MOST_BYTES = 2**22
"""What duplicating may make of a file."""

Dice = random.Random


def change(folder: Path, dice: Dice, *, links: bool = False) -> str:
    """Change one to three files below a folder in place.

    Args:
        folder: The folder.
        dice: What decides.
        links: Also make links to files outside.

    Returns:
        What was done, in words.
    """
    done = []
    for _ in range(dice.choice((1, 1, 1, 2, 3))):
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        if not files:
            break
        # A file of its own kind counts as much as all of a common kind.
        kinds = sorted({file.suffix for file in files})
        kind = dice.choice(kinds)
        file = dice.choice([file for file in files if file.suffix == kind])
        done.append(f"{file.relative_to(folder)}: {_change_file(file, dice, links)}")
    return "; ".join(done)


def _change_file(file: Path, dice: Dice, links: bool) -> str:
    if dice.random() < 0.03:
        return _replace_by_another_kind(file, dice, links)
    makers: dict[str, Callable[[bytes, Dice], bytes]] = {
        ".safetensors": change_safetensors,
        ".json": change_json_text,
        ".jsonl": change_text,
        ".onnx": change_onnx,
        ".yaml": change_text,
        ".jinja": change_text,
    }
    maker = makers.get(file.suffix, change_bytes)
    if dice.random() < 0.25:
        maker = change_bytes
    content = maker(file.read_bytes(), dice)
    file.unlink()  # it is a link to the sound file
    file.write_bytes(content)
    return maker.__name__


def _replace_by_another_kind(file: Path, dice: Dice, links: bool) -> str:
    kinds: tuple[str, ...] = ("gone", "empty", "folder", "link to itself")
    if links and file.name != "recipe.yaml":  # which the user names, wherever it leads
        kinds = (*kinds, *["link outside"] * 3)
    what = dice.choice(kinds)
    file.unlink()
    if what == "empty":
        file.touch()
    elif what == "folder":
        file.mkdir()
    elif what == "link outside":
        file.symlink_to(f"../{OUTSIDE}/secret.bin")
    elif what == "link to itself":
        file.symlink_to(file.name)
    return what


def change_bytes(content: bytes, dice: Dice) -> bytes:
    """Flipped, cut, repeated, inserted or moved bytes."""
    data = bytearray(content)
    for _ in range(dice.choice((1, 1, 2, 5, 20))):
        at = dice.randrange(len(data) + 1)
        length = dice.choice((1, 1, 4, 8, 64, 1000))
        kind = dice.randrange(6)
        if kind == 0 and data:
            data[at % len(data)] ^= 1 << dice.randrange(8)
        elif kind == 1:
            del data[at:]
        elif kind == 2:
            data[at:at] = dice.randbytes(length)
        elif kind == 3:
            del data[at : at + length]
        elif kind == 4 and len(data) < _MOST_BYTES:
            data[at:at] = data[at : at + length] * dice.choice((1, 2, 50))
        elif data:
            data[at : at + 8] = struct.pack("<q", dice.choice((0, -1, 2**31, 2**63 - 1, 8, 100)))
    return bytes(data)


def change_text(content: bytes, dice: Dice) -> bytes:
    """Words and brackets put into a text, or its lines mixed."""
    text = content.decode(errors="replace")
    for _ in range(dice.choice((1, 1, 2, 4))):
        at = dice.randrange(len(text) + 1)
        kind = dice.randrange(5)
        if kind == 0:
            text = text[:at] + dice.choice(WORDS) + text[at:]
        elif kind == 1:
            text = text[:at] + str(dice.choice(NUMBERS)) + text[at + dice.randrange(8) :]
        elif kind == 2:
            text = text[:at] + dice.choice("[]{}:,-&*!|>'\"#%\t\n") * dice.choice((1, 1, 3, 900))
            text += content.decode(errors="replace")[at:]
        elif kind == 3:
            lines = text.splitlines(keepends=True)
            dice.shuffle(lines)
            text = "".join(lines)
        else:
            text = text[:at] + text[at + dice.randrange(40) :]
    return text.encode(errors="replace")


def change_json_text(content: bytes, dice: Dice) -> bytes:
    """JSON with values of other types, keys gone, numbers huge, brackets deep."""
    try:
        value = json.loads(content)
    except ValueError:
        return change_text(content, dice)
    for _ in range(dice.choice((1, 1, 2, 4))):
        value = change_json(value, dice)
    return json.dumps(value).encode()


def change_json(value: Any, dice: Dice) -> Any:
    """The value with one node of it changed."""
    if dice.random() < 0.25 or not isinstance(value, dict | list) or not value:
        return _other(value, dice)
    if isinstance(value, list):
        at = dice.randrange(len(value))
        return [*value[:at], change_json(value[at], dice), *value[at + 1 :]]
    # Every key is as likely as all keys like it: a header has hundreds of tensors.
    key = dice.choice(sorted(value))
    kind = dice.randrange(8)
    if kind == 0:
        return {name: one for name, one in value.items() if name != key}
    if kind == 1:
        return {**value, dice.choice((*WORDS, key + "x")): value[key]}
    return {**value, key: change_json(value[key], dice)}


def _other(value: Any, dice: Dice) -> Any:  # noqa: C901 - a list of things to try
    kind = dice.randrange(9)
    if kind == 0:
        return dice.choice(NUMBERS)
    if kind == 1:
        return dice.choice(WORDS)
    if kind == 2:
        return dice.choice((None, True, False, [], {}, [[]], [None], {"": None}))
    if kind == 3:
        deep: Any = value
        for _ in range(dice.choice((1, 30, 400))):
            deep = [deep] if dice.random() < 0.5 else {"a": deep}
        return deep
    if kind == 4 and isinstance(value, list):
        return value * dice.choice((0, 2, 20))
    if kind == 5 and isinstance(value, str):
        return change_text(value.encode(), dice).decode(errors="replace")
    if kind == 6 and isinstance(value, str):
        try:  # JSON in a text, as in the metadata of safetensors
            return json.dumps(change_json(json.loads(value), dice))
        except ValueError:
            return value + value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return dice.choice((value + 1, value - 1, -value, value * 2, value * 2**32, str(value)))
    return dice.choice((*NUMBERS, *WORDS, None))


def change_safetensors(content: bytes, dice: Dice) -> bytes:
    """A header that says something else of the tensors, or of its own length."""
    try:
        (length,) = struct.unpack("<Q", content[:8])
        header = json.loads(content[8 : 8 + length])
    except (ValueError, struct.error):
        return change_bytes(content, dice)
    rest = content[8 + length :]
    kind = dice.randrange(6)
    if kind == 0:
        return (
            struct.pack("<Q", dice.choice((0, 1, 7, 2**32, 2**63, 2**64 - 1, len(content))))
            + (content[8:])
        )
    if kind == 1:
        return content[:8] + content[8 : 8 + length] + rest[: dice.randrange(len(rest) + 1)]
    name = dice.choice(sorted(header))
    entry = header[name]
    if kind in (2, 3) and name != "__metadata__" and isinstance(entry, dict):
        part = dice.choice(("dtype", "shape", "data_offsets"))
        other = header[dice.choice(sorted(set(header) - {"__metadata__"}))]
        if dice.random() < 0.5:
            said = other.get(part) if isinstance(other, dict) else other
            entry = {**entry, part: said}  # overlapping, or of another size
        else:
            entry = {**entry, part: change_json(entry.get(part), dice)}
        header = {**header, name: entry}
    else:
        for _ in range(dice.choice((1, 2, 5))):
            changed = change_json(header, dice)
            header = changed if isinstance(changed, dict) and changed else header
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + rest


def change_onnx(content: bytes, dice: Dice) -> bytes:
    """Fields of the protocol buffer set to other values, messages doubled, left out or nested."""
    import onnx
    from google.protobuf.message import DecodeError

    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
    except DecodeError:
        return change_bytes(content, dice)
    for _ in range(dice.choice((1, 1, 2, 4, 10))):
        try:
            _change_message(model, dice)
        except (ValueError, TypeError):  # a field that takes no such value
            continue
    return model.SerializeToString()


def _change_message(message: Any, dice: Dice) -> None:
    """Walk down to some field, and set it."""
    while True:
        fields = message.ListFields()
        if not fields or dice.random() < 0.05:
            fields = [(field, None) for field in message.DESCRIPTOR.fields]
        field, value = dice.choice(fields)
        is_message = field.message_type is not None
        if is_message and value is not None and dice.random() < 0.85:
            if not field.is_repeated:
                message = value
                continue
            if len(value):
                message = value[dice.randrange(len(value))]
                continue
        _change_field(message, field, dice)
        return


def _change_field(message: Any, field: Any, dice: Dice) -> None:
    value = getattr(message, field.name)
    if field.is_repeated:
        kind = dice.randrange(4)
        if kind == 0 and len(value):
            del value[dice.randrange(len(value))]
        elif kind == 1 and len(value):
            value.extend([value[dice.randrange(len(value))]] * dice.choice((1, 1, 20)))
        elif field.message_type is None:
            value.append(_scalar(field, dice))
        else:
            value.add()
    elif field.message_type is not None:
        if dice.random() < 0.7:
            message.ClearField(field.name)
        else:
            value.SetInParent()
    else:
        setattr(message, field.name, _scalar(field, dice))


def _scalar(field: Any, dice: Dice) -> Any:
    if field.cpp_type == field.CPPTYPE_STRING:
        is_text = field.type == field.TYPE_STRING
        word = dice.choice(WORDS)
        return word if is_text else dice.choice((word.encode(), dice.randbytes(64), b""))
    if field.cpp_type in (field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE):
        return float(dice.choice(NUMBERS[:-6]))
    bits = 31 if field.cpp_type in (field.CPPTYPE_INT32, field.CPPTYPE_ENUM) else 63
    number = int(dice.choice([one for one in NUMBERS if one == one and abs(one) < 2**bits]))
    return number if field.cpp_type != field.CPPTYPE_ENUM else abs(number) % 30


def linked(source: Path, target: Path) -> None:
    """A folder of hard links to the files of another one: cheap, for they are replaced whole."""
    shutil.copytree(source, target, copy_function=_link, symlinks=True)


def _link(source: str, target: str) -> None:
    Path(target).hardlink_to(source)
