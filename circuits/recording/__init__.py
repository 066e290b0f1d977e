"""One run, recorded: `trace` runs a fake copy of a model, `track` watches a real run, and both return a diagram.

May use every floor from `broadcasting` down. In the order of a recording: `interception` (torch's entry points,
patched while anybody records), `listener` (calls become `events`, tensors become numbers by `values`), `builder`
(events become boxes with named axes), `freezer` (boxes become frozen data); `symbols` are sizes that stay free.
`trace` and `track` are the public functions.
"""

from circuits.recording.builder import Builder, quoted, signature_of
from circuits.recording.events import Call
from circuits.recording.interception import watched
from circuits.recording.listener import Listener, unheard
from circuits.recording.symbols import Sizes, Symbols, name_of
from circuits.recording.trace import trace
from circuits.recording.track import Seen, Tracker, track

__all__ = [
    "Builder",
    "Call",
    "Listener",
    "Seen",
    "Sizes",
    "Symbols",
    "Tracker",
    "name_of",
    "quoted",
    "signature_of",
    "trace",
    "track",
    "unheard",
    "watched",
]
