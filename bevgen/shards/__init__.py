"""The shard files: images, ids and poses in plain HDF5, written by pwrite, read by memory map.

``fileformat <- opening <- {reader, writer} <- {merger, verifier}``; nothing else in bevgen
touches HDF5.
"""

from bevgen.shards.fileformat import (
    COLUMNS,
    PLAN_FILE,
    Failure,
    Row,
    ShardHeader,
    ShardInputs,
    ShardSummary,
    check_disk,
    check_place,
    settings_text,
    shard_folder,
)
from bevgen.shards.merger import merge
from bevgen.shards.opening import read_header, read_inputs
from bevgen.shards.reader import ShardSet
from bevgen.shards.verifier import VerifyReport, verify
from bevgen.shards.writer import PARTS, PartialShard, begin_shard, finish_shard, write_index

__all__ = [
    "COLUMNS",
    "PARTS",
    "PLAN_FILE",
    "Failure",
    "PartialShard",
    "Row",
    "ShardHeader",
    "ShardInputs",
    "ShardSet",
    "ShardSummary",
    "VerifyReport",
    "begin_shard",
    "check_disk",
    "check_place",
    "finish_shard",
    "merge",
    "read_header",
    "read_inputs",
    "settings_text",
    "shard_folder",
    "verify",
    "write_index",
]
