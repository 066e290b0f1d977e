"""Recording: `trace` runs a fake copy of a model and returns its diagram; `track` records real runs, one diagram each.

May use `broadcasting` and below. Start with `trace` and `track`. In the order of a recording:

- `interception` patches torch's entry points while a recording is active;
- `listener` and `intercepted_calls` convert calls to `events`, and `values` numbers the tensors in them;
- `builder` converts events to drafts of boxes and names their axes;
- `freezer` converts drafts to frozen boxes, of which `assembly` makes the diagram.

What a run does beside its torch calls: `snapshot` (what objects held before it), `attribute_reads`, `scopes` and
`held_state` (what its code reads of modules, variables and the objects in them), `property_reads` and `data_sizes`
(what it reads of tensors), `settings` and `intercepted_state` (what it changes in torch), `generators` (what it
draws random numbers from).

`trace` also uses `symbols` (symbolic sizes), `fake_copy`, `fake_forms`, `free_functions`, `known_data` (numbers that no
input has a say in), `trace_inputs`, `aten_calls`, `trace_errors` and `leaks`; `summary` is `trace` with other
arguments, and `diagram_of` what views call. `track` uses `printer` (with `repeated_runs` and `sinks`), `finite` and
`seen`; `tracker` and `tracker_calls` are `Tracker`. The other modules are helpers: `recorded_calls` and
`special_calls` of the listener, `thread_modes`, `recursion`, `module_paths`, `call_arguments`, `open_boxes` and
`user_frames`.
"""

from circuits.recording.builder import Builder, quoted
from circuits.recording.call_arguments import python_signature
from circuits.recording.diagram_of import diagram_of
from circuits.recording.events import Call
from circuits.recording.fake_forms import FakeMode
from circuits.recording.free_functions import FreeFunctions
from circuits.recording.interception import recorded_by
from circuits.recording.listener import Listener, unrecorded
from circuits.recording.seen import Seen
from circuits.recording.snapshot import Snapshot
from circuits.recording.summary import axes_of_sizes, summary
from circuits.recording.symbols import Symbols, TracingShapeEnv, axis_symbol
from circuits.recording.thread_modes import restores_modes
from circuits.recording.trace import trace
from circuits.recording.trace_inputs import refuse_target
from circuits.recording.track import track
from circuits.recording.tracker import Tracker

__all__ = [
    "Builder",
    "Call",
    "FakeMode",
    "FreeFunctions",
    "Listener",
    "Seen",
    "Snapshot",
    "Symbols",
    "TracingShapeEnv",
    "Tracker",
    "axes_of_sizes",
    "axis_symbol",
    "diagram_of",
    "python_signature",
    "quoted",
    "recorded_by",
    "refuse_target",
    "restores_modes",
    "summary",
    "trace",
    "track",
    "unrecorded",
]
