"""The engines: ways to run a backbone on this machine. A new one is one new file and one entry in `engine.py`.

Each engine does the preprocessing itself, so that no caller can do it wrong.
"""

from featx.engines.engine import (
    AUTO,
    ENGINE_CHOICES,
    ENGINES,
    FAST,
    Engine,
    EngineChoices,
    EngineOptions,
    JoinedEngine,
    check_engine,
    choose_engine,
    cpu_engine,
    create_engine,
    create_joined_engine,
    default_batch_size,
    engines_for,
    engines_on_cpu,
    needs_keras,
    needs_weights,
)
from featx.engines.networks import (
    calibration_digest,
    check_network,
    is_converted,
    kept_calibrations,
    network_files,
    network_path,
    pack_network,
    unpack_network,
)
from featx.engines.openvino_engine import OpenVinoEngine, load_network
from featx.engines.precision import auto_precision, fast_precision, say_fast, speedup
from featx.engines.quantization import (
    N_CALIBRATION,
    best_calibration,
    calibration_rows,
    choose_calibration,
)
