"""The machine and the terminal: cores, memory, time, progress, Ctrl-C, and numbers and tables for people.

Nothing here knows of images.
"""

from featx.system.arguments import (
    MAX_THREADS,
    as_mask,
    as_rows,
    as_workers,
    brief,
    check_name,
    did_you_mean,
    duration,
    from_json_value,
    names,
    parse_duration,
    parse_size,
    shown,
    size,
    whole_number,
)
from featx.system.commands import as_argument, command_line, shell_line
from featx.system.late_imports import (
    hide_with,
    import_keras,
    import_ncnn,
    import_nncf,
    import_openvino,
    import_pyarrow,
    kept_signal_stack,
    keras_backend,
    keras_sees_gpu,
    openvino_has_bfloat16,
)
from featx.system.machine import (
    HALF_OF_FREE,
    MemoryLimit,
    as_memory_limit,
    cpu_has_bfloat16,
    cpu_has_int8,
    cpu_seconds,
    cuda_capability,
    free_memory_bytes,
    hardware,
    has_fast_bfloat16,
    n_cores,
    now,
    peak_memory_bytes,
    reset_peak_memory,
    versions,
)
from featx.system.missing_packages import import_failure, install_command
from featx.system.prefetch import DaemonThreads, OnDemand, in_threads, prefetched
from featx.system.progress import (
    Terminated,
    held_interrupts,
    ignore_interrupts,
    progress_bar,
    raise_terminated,
    waiting,
)
from featx.system.tables import csv_lines, data_frame, escape_markdown, markdown_table, n_columns, text_table
from featx.system.timings import Stopwatch, Stopwatches, Timings
